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

PHOTO: Final = "photo"
"""Name of the released model of photographs."""

AUTO: Final = "auto"

LARGE_SIDE: Final = 64
"""Shorter side from which an image counts as large, in pixels. Provisional: to be measured with
CIFAR-10 test images and photographs at 24 to 512 pixels."""


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
        """Both models."""
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
    if small is None or PHOTO not in names or AUTO in names:
        return None
    return AutoRule(small, PHOTO)
