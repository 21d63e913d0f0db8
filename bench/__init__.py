"""Measure models and the service; keep raw rows; render the efficiency table from them."""
