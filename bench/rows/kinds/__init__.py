"""Classes of rows, one for each kind of measurement."""
