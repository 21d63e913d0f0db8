"""BentoML server as its documentation shows it: a typed image in, JSON out.

Services and the image type: docs.bentoml.com/en/latest/build-with-bentoml/services.html and
.../iotypes.html ("Images": ``PIL.Image.Image``, sent as a multipart form). With our decoder the
image is typed as a file (``pathlib.Path``, "Files"), the closest documented type to bytes.

    bentoml serve server:Cifar10
"""

from pathlib import Path
from typing import Any

import bentoml
from PIL.Image import Image

from bench.peers.classifier import DECODER, Classifier, decode, pixels_of


@bentoml.service(workers=1)
class Cifar10:
    """A service with one model and one route."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    if DECODER == "ours":

        @bentoml.api
        def classify(self, image: Path) -> dict[str, Any]:
            """Classify an image."""
            return self.classifier.classify(decode(image.read_bytes()))

    else:

        @bentoml.api
        def classify(self, image: Image) -> dict[str, Any]:
            """Classify an image."""
            return self.classifier.classify(pixels_of(image))
