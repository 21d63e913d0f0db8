"""Tests of bench/commands."""
