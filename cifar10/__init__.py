"""The kernel: code that training, exporting, serving and measuring must share exactly.

It contains the labels, image decoding, the dataset and its split, the model card and store, the
predictor, and the exceptions. It does not depend on Keras, HTTP or benchmarks, and imports none of
the packages that do.
"""

import os

# ONNX Runtime reads this variable on import. Without it, ONNX Runtime keeps a device id and a
# database of events (path of the executable, CPU, models) in the user's cache folder, and sends
# them to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
