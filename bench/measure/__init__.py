"""Measurements in process: accuracy, latency, resources, robustness."""
