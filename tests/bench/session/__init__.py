"""Tests of bench/session."""
