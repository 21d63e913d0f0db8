"""Rows of how accuracy holds on images as users send them. See :mod:`bench.measure.sendings`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SendingMeasurement:
    """Which test images are still classified rightly when they are sent in one way."""

    provider: str
    way: str
    images: int
    seed: int
    """Of the choice of images and of what is random in the way."""
    clean_hits: str
    """Base64 of one bit per image: whether the tile itself was classified rightly."""
    hits: str
    """Likewise, as sent."""
