"""Tests of the package export."""
