"""Numerical precision of training.

With ``bf16`` layers compute in bfloat16; their weights, the optimizer's variables, the loss and the
probabilities stay float32 (Micikevicius et al., arXiv 1710.03740; bfloat16 has float32's range, so
no loss scaling). A GPU's matrix units are then twice as fast as in TF32. The model that is kept
computes in float32 whatever it was trained in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, get_args

import keras

from training.networks.models import build_model
from training.recipes.schema import Recipe

Precision = Literal["fp32", "bf16"]

PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

_POLICIES: Final[dict[Precision, str]] = {"fp32": "float32", "bf16": "mixed_bfloat16"}


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Let layers built inside this context compute in ``precision``."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def in_float32(model: keras.Model, recipe: Recipe, precision: Precision) -> keras.Model:
    """Return the whole ``model`` of ``recipe``, trained in ``precision``, as one that computes in
    float32 with the same weights."""
    if precision == "fp32":
        return model
    with computing_in("fp32"):
        plain = build_model(recipe)
    plain.set_weights(model.get_weights())
    return plain
