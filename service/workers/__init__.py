"""Worker processes: their supervisor, their server, the board they share."""
