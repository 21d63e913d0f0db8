"""BentoML as its documentation has it: a typed image in, JSON out.

Services and the image type: docs.bentoml.com/en/latest/build-with-bentoml/services.html and
.../iotypes.html ("Images": ``PIL.Image.Image``, sent as a multipart form). With our decoder the
image is typed as bytes' nearest documented relative, a file (``pathlib.Path``, "Files").

    bentoml serve server:Cifar10
"""

from pathlib import Path
from typing import Any

import bentoml
from PIL.Image import Image

from bench.peers.classifier import DECODER, Classifier, decode, pixels_of


@bentoml.service(workers=1)
class Cifar10:
    """One model, one route."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    if DECODER == "ours":

        @bentoml.api
        def classify(self, image: Path) -> dict[str, Any]:
            """An image's class."""
            return self.classifier.classify(decode(image.read_bytes()))

    else:

        @bentoml.api
        def classify(self, image: Image) -> dict[str, Any]:
            """An image's class."""
            return self.classifier.classify(pixels_of(image))
