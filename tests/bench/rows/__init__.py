"""Tests of bench/rows."""
