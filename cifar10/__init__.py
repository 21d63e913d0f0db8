"""The kernel: what training, exporting, serving and measuring must do in exactly the same way.

Labels, image decoding, the dataset and its split, the model card and store, the predictor, and the
exceptions. It knows nothing of Keras, HTTP or benchmarks, and imports none of the packages that do.
"""

import os

# ONNX Runtime reads it when it is imported. Otherwise it keeps a device id and a database of events
# (path of the executable, CPU, models) in the user's cache folder, and sends them to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
