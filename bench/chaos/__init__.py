"""Fault injection: killed workers, reloads, hostile input, bombs, a soak."""
