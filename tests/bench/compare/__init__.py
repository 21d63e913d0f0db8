"""Tests of bench/compare."""
