"""MLServer with a custom runtime, as its documentation has it: an image as base64 in the v2 JSON.

docs.seldon.ai/mlserver/user-guide/custom ("Simplified interface": ``decode_args``) and
.../user-guide/content-type (``base64``: an element of BYTES is a file). One inference worker is its
default (.../user-guide/parallel-inference).

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
