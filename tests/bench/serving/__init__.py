"""Tests of bench/serving."""
