"""LitServe as its documentation has it: the four steps of a ``LitAPI``, an image as base64 in JSON.

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
    """One model; one image a call, or as many as have come."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.classifier = Classifier()

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Base64 to pixels."""
        return decode(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> Any:
        """Images to one array."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """Pixels to probabilities."""
        return self.classifier.predict(x if x.ndim == 4 else x[np.newaxis])

    def unbatch(self, output: Any) -> Any:
        """One array to its rows."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Probabilities to JSON."""
        return answer(output.reshape(-1))


if __name__ == "__main__":
    api = Cifar10(max_batch_size=BATCH, batch_timeout=0.01 if BATCH > 1 else 0.0)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
