"""Tests of bench/peers."""
