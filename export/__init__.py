"""Convert a trained Keras model to a servable ONNX graph, and verify that both agree."""

import cifar10  # noqa: F401 — turns telemetry off before ONNX Runtime is imported
