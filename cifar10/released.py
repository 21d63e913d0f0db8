"""Choose the default model: the one used when a request or command names none."""

from collections.abc import Collection
from typing import Final, Literal

RELEASED: Final[dict[Literal["cpu", "cuda"], tuple[str, ...]]] = {
    "cpu": ("compact_int8", "compact"),
    "cuda": ("compact", "compact_int8"),
}
"""Released models by device, in order of preference. int8 halved the time on an Intel Xeon
(Sapphire Rapids) and took a third off on an AMD EPYC without VNNI, with no loss of accuracy that
the test images show. It has not been measured on ARM or CUDA."""


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
