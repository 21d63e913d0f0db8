"""Comparison of two sets of rows, and a self-test of it with planted regressions."""
