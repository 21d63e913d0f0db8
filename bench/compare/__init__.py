"""Comparison of two sets of rows, and a self-test that it detects planted regressions."""
