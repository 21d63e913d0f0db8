"""Tests of bench/chaos."""
