"""Rows: the records of measurements, and how they are written, read and selected."""
