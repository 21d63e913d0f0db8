"""Measuring: statistics, rows, latency, load and the report."""
