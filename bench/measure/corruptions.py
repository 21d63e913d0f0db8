"""Reproducible corruptions of test images: five kinds, five severities.

The kinds and their strengths are those of CIFAR-10-C (D. Hendrycks and T. Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019), five
of its nineteen, computed here with NumPy and Pillow. Accuracies are comparable between models
measured here. They are not CIFAR-10-C scores, because the original images may already be JPEG
copies.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rows.kinds.accuracy import SEVERITIES

Images = NDArray[np.uint8]
"""uint8 (N, height, width, 3), RGB."""

SEED: Final = 0

_CHUNK: Final = 1_000
"""Number of images processed at once, which bounds the memory for floats."""


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption."""

    name: str
    parameter: str
    """Parameter that the severity changes, with its unit."""
    strengths: tuple[float, ...]
    """Value of the parameter for each of :data:`SEVERITIES`."""
    apply: Callable[[Images, float, np.random.Generator], Images]


def corrupt(corruption: Corruption, images: Images, severity: int, seed: int = SEED) -> Images:
    """Return a corrupted copy of ``images``; equal arguments give equal copies.

    Args:
        corruption: one of :data:`CORRUPTIONS`.
        images: uint8 (N, height, width, 3), RGB.
        severity: 1–5.
        seed: seed of the noise. Each corruption and severity has its own random stream.

    Returns:
        uint8 (N, height, width, 3), RGB.

    Raises:
        ValueError: the severity is unknown.
    """
    if severity not in SEVERITIES:
        message = f"severity must be 1–5, got {severity}"
        raise ValueError(message)
    stream = np.random.default_rng([seed, zlib.crc32(corruption.name.encode()), severity])
    strength = corruption.strengths[severity - 1]
    chunks = [
        corruption.apply(images[start : start + _CHUNK], strength, stream)
        for start in range(0, len(images), _CHUNK)
    ]
    return np.concatenate(chunks) if chunks else images.copy()


def _gaussian_noise(images: Images, deviation: float, random: np.random.Generator) -> Images:
    noise = random.standard_normal(images.shape, np.float32)
    return _to_bytes(images + noise * np.float32(deviation * 255))


def _gaussian_blur(images: Images, deviation: float, _: np.random.Generator) -> Images:
    """Apply a separable Gaussian kernel, cut off at four standard deviations; repeat the edges."""
    radius = int(4 * deviation + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    blurred = images.astype(np.float32)
    for axis in (1, 2):
        size = blurred.shape[axis]
        width = [(radius, radius) if position == axis else (0, 0) for position in range(4)]
        padded = np.pad(blurred, width, mode="edge")
        blurred = np.zeros(images.shape, np.float32)
        for start, weight in enumerate(kernel):
            blurred += weight * padded.take(range(start, start + size), axis)
    return _to_bytes(blurred)


def _jpeg(images: Images, quality: float, _: np.random.Generator) -> Images:
    """Encode and decode as JPEG with 4:2:0 subsampling, as Pillow writes it."""
    found = np.empty_like(images)
    for position, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(quality))
        found[position] = np.asarray(Image.open(buffer))
    return found


def _brightness(images: Images, added: float, _: np.random.Generator) -> Images:
    """Add to the HSV value, which scales red, green and blue alike; black becomes grey."""
    value = images.max(axis=3, keepdims=True).astype(np.float32)
    brighter = np.minimum(value + np.float32(added * 255), 255)
    scaled = np.where(value > 0, images * (brighter / np.maximum(value, 1)), brighter)
    return _to_bytes(scaled)


def _contrast(images: Images, kept: float, _: np.random.Generator) -> Images:
    """Shrink the distance from each image's own mean colour."""
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return _to_bytes((images - mean) * np.float32(kept) + mean)


def _to_bytes(values: NDArray[np.float32]) -> Images:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS: Final = (
    Corruption(
        "gaussian noise",
        "standard deviation (of 0–1)",
        (0.04, 0.06, 0.08, 0.09, 0.10),
        _gaussian_noise,
    ),
    Corruption("blur", "standard deviation (pixels)", (0.4, 0.6, 0.7, 0.8, 1.0), _gaussian_blur),
    Corruption("JPEG", "quality", (80, 65, 58, 50, 40), _jpeg),
    Corruption(
        "brightness", "added to the value (of 0–1)", (0.05, 0.1, 0.15, 0.2, 0.3), _brightness
    ),
    Corruption("contrast", "share kept", (0.75, 0.5, 0.4, 0.3, 0.15), _contrast),
)
