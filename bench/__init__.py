"""Measure models and the service; keep raw rows; render the efficiency table from them."""

import cifar10  # noqa: F401 — turns telemetry off before ONNX Runtime is imported
