"""Recipes: how each model is trained."""
