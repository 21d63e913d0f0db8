"""Targets of the loss."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.recipes.schema import Phase, Recipe


def make_targets(
    recipe: Recipe,
    phase: Phase,
    labels: NDArray[np.integer],
    class_count: int,
    taught: NDArray[np.float32] | None = None,
    order: NDArray[np.int64] | slice = slice(None),
) -> NDArray[Any]:
    """Return class ids, or with smoothing or a teacher, float32 (N, class_count).

    ``taught``, in the dataset's order, has the teacher's part; its rows ``order`` are used.
    """
    distillation = recipe.distillation_in(phase)
    if not recipe.label_smoothing and distillation is None:
        return labels
    true: NDArray[np.float32] = np.eye(class_count, dtype=np.float32)[labels]
    if distillation is None or taught is None:
        return true
    share = np.float32(distillation.share)
    mixed: NDArray[np.float32] = (1 - share) * true + share * taught[order]
    return mixed
