"""Rows: what a measurement leaves, how it is written, read and selected."""
