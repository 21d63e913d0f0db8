"""Model, decoder and response shared by all peers, so that only the servers differ.

The peers' scripts import it in their own environments, which contain numpy, Pillow, onnxruntime
and, for our decoder, simplejpeg. It reads environment variables:

- ``PEER_MODEL``: path of the ``model.onnx`` to serve, the same file that this service serves;
- ``PEER_DECODER``: ``own`` (Pillow, as in the servers' documentation) or ``ours``.
"""

import io
import os
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from cifar10.contract import INPUT, OUTPUT
from cifar10.labels import IMAGE_SIZE, LABELS

DECODER: Final = os.environ.get("PEER_DECODER", "own")


class Classifier:
    """The model in ONNX Runtime with one thread, as in :mod:`cifar10.predictor`."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities, float32 (N, 10), for uint8 (N, 32, 32, 3) RGB."""
        (probabilities,) = self._session.run([OUTPUT.name], {INPUT.name: images})
        result: NDArray[np.float32] = probabilities
        return result

    def classify(self, image: NDArray[np.uint8]) -> dict[str, Any]:
        """Classify one image, uint8 (32, 32, 3) RGB, and return a JSON object."""
        return answer(self.predict(image[np.newaxis])[0])


def answer(probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """Return the class and the probabilities, float32 (10,), as a JSON object."""
    class_id = int(probabilities.argmax())
    return {
        "label": LABELS[class_id],
        "class_id": class_id,
        "probabilities": probabilities.tolist(),
    }


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an opened image to uint8 (32, 32, 3) RGB, as the servers' documentation shows."""
    image = image.convert("RGB")
    if image.size != (IMAGE_SIZE, IMAGE_SIZE):
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file to uint8 (32, 32, 3) RGB with the configured decoder."""
    if DECODER == "ours":
        from cifar10.images import decode_image

        return decode_image(data)
    return pixels_of(Image.open(io.BytesIO(data)))
