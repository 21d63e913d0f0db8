"""Train recipes with Keras 3: read a data set, write ``model.keras`` and ``training.json``."""

import cifar10  # noqa: F401 — turns telemetry off before ONNX Runtime is imported
