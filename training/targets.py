"""What the loss compares a network's answers with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar10.labels import CLASS_COUNT
from training.recipes.schema import Phase, Recipe


def make_targets(
    recipe: Recipe,
    phase: Phase,
    labels: NDArray[np.uint8],
    taught: NDArray[np.float32] | None = None,
    order: NDArray[np.int64] | slice = slice(None),
) -> NDArray[Any]:
    """What the loss takes: class ids, or float32 (N, 10) where it smooths them or there is a
    teacher; of ``taught``, which is in the dataset's order, the rows ``order``."""
    distillation = recipe.distillation_in(phase)
    if not recipe.label_smoothing and distillation is None:
        return labels
    true = np.eye(CLASS_COUNT, dtype=np.float32)[labels]
    if distillation is None or taught is None:
        return true
    share = np.float32(distillation.share)
    mixed: NDArray[np.float32] = (1 - share) * true + share * taught[order]
    return mixed
