"""Measure models and the service, and read what was measured."""
