"""The model that answers where none is named."""

from collections.abc import Collection
from typing import Final, Literal

RELEASED: Final[dict[Literal["cpu", "cuda"], tuple[str, ...]]] = {
    "cpu": ("compact_int8", "compact"),
    "cuda": ("compact", "compact_int8"),
}
"""By where it runs, the first choice first. On an Intel Xeon (Sapphire Rapids) int8 halved the
time, on an AMD EPYC without VNNI it took a third off, and it cost no accuracy that the test images
show; on ARM, and on CUDA, it has not been measured."""


def default_model(names: Collection[str], device: Literal["cpu", "cuda"]) -> str | None:
    """The default among ``names``: the only one, or the first that is released for ``device``.

    Args:
        names: the models there are.
        device: where they will run.

    Returns:
        None where none of several is released.
    """
    if len(names) == 1:
        return next(iter(names))
    return next((name for name in RELEASED[device] if name in names), None)
