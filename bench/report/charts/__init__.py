"""Charts of the report: SVG text, drawn from rows."""
