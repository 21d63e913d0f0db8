"""Commands that measure models and the service, and commands that show the measurements."""
