"""Tests of bench/scenarios."""
