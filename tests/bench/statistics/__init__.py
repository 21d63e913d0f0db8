"""Tests of bench/statistics."""
