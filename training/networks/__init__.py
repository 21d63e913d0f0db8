"""Networks: the layers of each model."""
