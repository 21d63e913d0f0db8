"""Measurements of a running service, and the process that runs it."""
