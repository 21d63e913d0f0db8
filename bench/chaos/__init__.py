"""Fault injection: killed workers, reloads, hostile input, bombs and a soak."""
