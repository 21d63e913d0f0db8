"""The report's part on the reference study."""
