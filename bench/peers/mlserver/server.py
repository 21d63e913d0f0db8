"""MLServer with a custom runtime, as its documentation has it: an image as base64 in the v2 JSON.

docs.seldon.ai/mlserver/user-guide/custom and .../user-guide/content-type (``base64``: an element of
BYTES is a file). With ``MLSERVER_PARALLEL_WORKERS=0`` the model runs in the server's own process
(.../user-guide/parallel-inference): a second process, its default, would share the one core with
it, and that of 1.7.1 does not start with uvloop 0.23.

    mlserver start .
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.classifier import Classifier, decode


class Cifar10(MLModel):
    """One model."""

    async def load(self) -> bool:
        """Load the model."""
        self._classifier = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Images to probabilities."""
        images = [decode(data) for data in Base64Codec.decode_input(payload.inputs[0])]
        probabilities = self._classifier.predict(np.stack(images))
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output("probabilities", probabilities)],
        )
