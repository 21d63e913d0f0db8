"""LitServe as its documentation shows it: a ``LitAPI``, with the image as base64 in JSON.

lightning.ai/docs/litserve/get-started and .../api-reference/litapi; with ``PEER_BATCH`` also
.../features/batching (``max_batch_size`` and ``batch_timeout``).

    python server.py PORT
"""

import base64
import os
import sys
from typing import Any

import litserve as ls
import numpy as np

from bench.peers.classifier import Classifier, answer, decode

BATCH = int(os.environ.get("PEER_BATCH", "1"))


class Cifar10(ls.LitAPI):
    """API for one model, called with one image or with a batch."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.classifier = Classifier()

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Decode base64 to pixels."""
        return decode(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> Any:
        """Stack images into one array."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """Compute probabilities from pixels."""
        return self.classifier.predict(x if x.ndim == 4 else x[np.newaxis])

    def unbatch(self, output: Any) -> Any:
        """Split an array into its rows."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return probabilities as a JSON object."""
        return answer(output.reshape(-1))


if __name__ == "__main__":
    api = Cifar10(max_batch_size=BATCH, batch_timeout=0.01 if BATCH > 1 else 0.0)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
