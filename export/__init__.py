"""Turn a trained Keras model into a servable ONNX graph, and prove that it is the same model."""

import cifar10  # noqa: F401 — turns telemetry off before ONNX Runtime is imported
