"""Request and response formats for classifying one image on each server.

The same image is sent as a file, in a multipart form, as base64 in JSON, or as pixels after a v2
header. Every response must contain all ten probabilities.
"""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.load.bodies import V2_HEADER_LENGTH, v2_header
from cifar10.contract import INPUT
from cifar10.errors import BenchError
from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE, LABELS

_BOUNDARY: Final = "peer-boundary-7f3a"


@dataclass(frozen=True)
class Answer:
    """A server's response for one image."""

    label: str
    """Label from the response, or the class with the largest probability if the response has none.
   """
    probabilities: NDArray[np.float64]
    """Probabilities, float64 (10,), each 0–1."""


@dataclass(frozen=True)
class Question:
    """A request in one format. All requests of one format have the same headers."""

    title: str
    """Content of the request, for the report."""
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Form(Protocol):
    """A format: builds request bodies from images and reads responses."""

    question: Question

    def body(self, jpeg: bytes) -> bytes:
        """Return the request body for a 32 × 32 JPEG."""

    def read(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Read a response.

        Raises:
            ValueError, KeyError, IndexError, TypeError: the response has another format.
        """


class RawImage:
    """Image as the body; the response is JSON with a label and ten probabilities."""

    question = Question("JPEG", "image/jpeg")

    def body(self, jpeg: bytes) -> bytes:
        """Return the image unchanged."""
        return jpeg

    def read(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Read ``probabilities``, or ``top_k`` of all ten in this service's response."""
        value = json.loads(body)
        if "top_k" in value:
            value["probabilities"] = [0.0] * CLASS_COUNT
            for entry in value["top_k"]:
                value["probabilities"][entry["class_id"]] = entry["probability"]
        return Answer(str(value["label"]), np.asarray(value["probabilities"], np.float64))


class FormImage(RawImage):
    """Image in the field ``image`` of a multipart form (RFC 7578)."""

    question = Question("JPEG in a form", f"multipart/form-data; boundary={_BOUNDARY}")

    def body(self, jpeg: bytes) -> bytes:
        """Return a form with one file."""
        head = (
            f"--{_BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="image"; filename="image.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        return head.encode() + jpeg + f"\r\n--{_BOUNDARY}--\r\n".encode()


class Base64Image(RawImage):
    """Image as base64 under ``image`` in JSON."""

    question = Question("JPEG as base64 in JSON", "application/json")

    def body(self, jpeg: bytes) -> bytes:
        """Return ``{"image": "..."}``."""
        return json.dumps({"image": base64.b64encode(jpeg).decode()}).encode()


class V2Base64Image:
    """Image as base64 in a BYTES tensor of the v2 protocol's JSON."""

    question = Question("JPEG as base64 in v2 JSON", "application/json")

    def body(self, jpeg: bytes) -> bytes:
        """Return a v2 inference request."""
        tensor = {
            "name": INPUT.name,
            "shape": [1],
            "datatype": "BYTES",
            "parameters": {"content_type": "base64"},
            "data": [base64.b64encode(jpeg).decode()],
        }
        return json.dumps({"inputs": [tensor]}).encode()

    def read(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Read the data of the only output."""
        return _of_probabilities(json.loads(body)["outputs"][0]["data"])


_V2_HEADER: Final = v2_header(1, *IMAGE_SHAPE)


class V2Pixels:
    """Decoded image as a UINT8 tensor in the v2 protocol's binary extension."""

    question = Question(
        "pixels, v2 binary",
        "application/octet-stream",
        {V2_HEADER_LENGTH: str(len(_V2_HEADER))},
    )

    def body(self, jpeg: bytes) -> bytes:
        """Return the request's JSON followed by the pixels, 3,072 bytes."""
        pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        return _V2_HEADER + pixels.tobytes()

    def read(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Read the bytes after the response's JSON, or the data inside the JSON."""
        length = headers.get(V2_HEADER_LENGTH.lower())
        if length is None:
            return _of_probabilities(json.loads(body)["outputs"][0]["data"])
        return _of_probabilities(np.frombuffer(body, np.float32, offset=int(length)))


def _of_probabilities(values: Any) -> Answer:
    probabilities = np.asarray(values, np.float64).ravel()
    return Answer(LABELS[int(probabilities.argmax())], probabilities)


def check_same(answer: Answer, expected: NDArray[np.float32], tolerance: float, who: str) -> None:
    """Compare a server's response with the model's in this process.

    Raises:
        BenchError: the label differs, or a probability differs by more than ``tolerance``.
    """
    label = LABELS[int(expected.argmax())]
    if answer.probabilities.shape != (CLASS_COUNT,):
        message = f"{who} gave {answer.probabilities.size} probabilities, expected {CLASS_COUNT}"
        raise BenchError(message)
    apart = float(np.abs(answer.probabilities - expected).max())
    if answer.label != label or not apart <= tolerance:
        message = (
            f"{who} does not give the same answer: {answer.label}, in process {label}; "
            f"probabilities up to {apart:.2g} apart, allowed are {tolerance:g}"
        )
        raise BenchError(message)
