"""Choose the default model: the one used when a request or command names none.

Where there is a model of photographs, that is ``auto``, a virtual model: the model of photographs
answers large images, the model of tiles small ones.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

RELEASED: Final[dict[Literal["cpu", "cuda"], tuple[str, ...]]] = {
    "cpu": ("compact_int8", "compact"),
    "cuda": ("compact", "compact_int8"),
}
"""Released models of tiles by device, in order of preference. int8 halved the time on an Intel Xeon
(Sapphire Rapids) and took a third off on an AMD EPYC without VNNI, with no loss of accuracy that
the test images show. It has not been measured on ARM or CUDA."""

PHOTOS: Final[dict[Literal["cpu", "cuda"], tuple[str, ...]]] = {
    "cpu": ("photo_int8", "photo"),
    "cuda": ("photo", "photo_int8"),
}
"""Models of photographs by device, in order of preference."""

AUTO: Final = "auto"

LARGE_SIDE: Final = 64
"""Shorter side from which an image counts as large, in pixels. Of 388 photographs of the ten
classes, reduced to 48 pixels, ``photo_int8`` named the class of 81 % (many became ``none``) and
``compact_int8`` of 84.5 %; at 64 pixels 89 and 84.5 %, at 128 pixels 95 and 85.3 %."""


def default_model(names: Collection[str], device: Literal["cpu", "cuda"]) -> str | None:
    """Return the default among ``names``: the only one, or the first released for ``device``.

    Args:
        names: the available models.
        device: the device they will run on.

    Returns:
        The name, or None if there are several and none is released.
    """
    if len(names) == 1:
        return next(iter(names))
    return next((name for name in RELEASED[device] if name in names), None)


@dataclass(frozen=True)
class AutoRule:
    """Which model answers which image."""

    small: str
    large: str
    large_side: int = LARGE_SIDE
    """Shorter side from which an image counts as large, in pixels."""

    @property
    def names(self) -> tuple[str, str]:
        """Names of the small and the large model."""
        return self.small, self.large

    def choose(self, width: int, height: int) -> str:
        """Return the model for an image of this size."""
        return self.large if min(width, height) >= self.large_side else self.small


def auto_rule(names: Collection[str], device: Literal["cpu", "cuda"]) -> AutoRule | None:
    """Return the rule for a store.

    Args:
        names: the available models.
        device: the device they will run on.

    Returns:
        The rule, or None if there is no model of photographs or of tiles, or if a model is named
        ``auto``.
    """
    small = next((name for name in RELEASED[device] if name in names), None)
    large = next((name for name in PHOTOS[device] if name in names), None)
    if small is None or large is None or AUTO in names:
        return None
    return AutoRule(small, large)
