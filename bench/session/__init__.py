"""Measuring sessions: plan, stages and resumption."""
