"""Request bodies: images as PNG or JPEG files, and many images as one array."""

import io
import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar10.contract import INPUT, OUTPUT

V2_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Header of the v2 binary tensor extension: number of JSON bytes in the body."""
_JPEG_QUALITY: Final = 90


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 (H, W, 3) RGB, as lossless PNG."""
    return _encode(image, "PNG")


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 (H, W, 3) RGB, as a baseline JPEG of quality 90."""
    return _encode(image, "JPEG", quality=_JPEG_QUALITY)


def encode_npy(images: NDArray[np.uint8]) -> bytes:
    """Encode images, uint8 (N, H, W, 3) RGB, as ``numpy.save`` does, for ``/classify/batch``."""
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    return buffer.getvalue()


def v2_header(*shape: int) -> bytes:
    """Return the JSON before the pixels of a v2 inference request with the binary extension.

    Args:
        shape: shape of the image tensor, (N, H, W, 3).
    """
    tensor: dict[str, Any] = {
        "name": INPUT.name,
        "shape": list(shape),
        "datatype": INPUT.datatype,
        "parameters": {"binary_data_size": int(np.prod(shape))},
    }
    output = {"name": OUTPUT.name, "parameters": {"binary_data": True}}
    return json.dumps({"inputs": [tensor], "outputs": [output]}).encode()


def _encode(image: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()
