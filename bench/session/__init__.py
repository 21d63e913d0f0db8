"""A whole measuring session: its plan, its stages, and how to resume it."""
