"""Rendering of rows into the report, its plots and tables. Measures nothing."""
