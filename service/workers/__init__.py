"""Worker processes: their supervisor, their server and connections, and the board they share."""
