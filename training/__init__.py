"""Train the recipes with Keras 3: dataset in, ``model.keras`` and ``training.json`` out."""

import cifar10  # noqa: F401 — turns telemetry off before ONNX Runtime is imported
