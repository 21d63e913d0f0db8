"""MLServer with a custom runtime as its documentation shows it: an image as base64 in v2 JSON.

docs.seldon.ai/mlserver/user-guide/custom and .../user-guide/content-type (``base64``: each
BYTES element is a file). With ``MLSERVER_PARALLEL_WORKERS=0`` the model runs in the server's own
process (.../user-guide/parallel-inference): the default second process would share the one core
with it, and in 1.7.1 it does not start with uvloop 0.23.

    mlserver start .
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.classifier import Classifier, decode


class Cifar10(MLModel):
    """Runtime for one model."""

    async def load(self) -> bool:
        """Load the model."""
        self._classifier = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Compute probabilities from images."""
        images = [decode(data) for data in Base64Codec.decode_input(payload.inputs[0])]
        probabilities = self._classifier.predict(np.stack(images))
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output("probabilities", probabilities)],
        )
