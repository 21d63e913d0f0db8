"""Feed arrays to Keras without a delay at the end of every epoch.

Keras feeds arrays through a self-tuning ``tf.data`` pipeline. The tuning thread sleeps for 10 ms,
then twice as long each time, up to a minute. After the last batch, the shutdown of the pipeline
usually waits for that thread to wake up (TensorFlow 2.21). So most calls of ``fit``, ``evaluate``
and ``predict`` lasted until the next of 0.01 × (2ⁿ − 1) seconds: an epoch's 60 s of work could take
82 s. This pipeline is the same without tuning; a test checks that the trained model is identical to
the bit. Backends other than TensorFlow get the arrays themselves.
"""

import math
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

_AHEAD: Final = 2
"""Number of batches prepared in advance."""


def fit(
    model: keras.Model,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    batch_size: int,
    callbacks: list[keras.callbacks.Callback] | None = None,
) -> dict[str, float]:
    """Train for one epoch, in the order of ``inputs``.

    Args:
        model: compiled model.
        inputs: array (N, ...).
        targets: targets for the model's loss, (N,) or (N, 10).
        batch_size: images a step; the last step may have fewer.
        callbacks: Keras callbacks.

    Returns:
        The loss and the metrics of the epoch, by name.
    """
    history = model.fit(
        **_fed(inputs, targets, batch_size),
        epochs=1,
        shuffle=False,
        verbose=0,
        callbacks=callbacks or [],
    ).history
    return {name: float(values[0]) for name, values in history.items()}


def evaluate(
    model: keras.Model, inputs: NDArray[Any], targets: NDArray[Any], batch_size: int
) -> dict[str, float]:
    """Return the loss and the metrics by name; arguments are as for :func:`fit`."""
    found = model.evaluate(**_fed(inputs, targets, batch_size), verbose=0, return_dict=True)
    return {name: float(value) for name, value in found.items()}


def predict(model: keras.Model, inputs: NDArray[Any], batch_size: int) -> NDArray[Any]:
    """Return the model's outputs for ``inputs``, (N, ...), in order."""
    return np.asarray(model.predict(**_fed(inputs, None, batch_size), verbose=0))


def _fed(inputs: NDArray[Any], targets: NDArray[Any] | None, batch_size: int) -> dict[str, Any]:
    if keras.backend.backend() != "tensorflow":
        given = {"x": np.asarray(inputs), "batch_size": batch_size}
        return given if targets is None else given | {"y": targets}
    arrays = (np.asarray(inputs),) if targets is None else (np.asarray(inputs), targets)
    return {"x": _untuned(arrays, batch_size)}


def _untuned(arrays: tuple[NDArray[Any], ...], batch_size: int) -> Any:
    """Return a ``tf.data.Dataset`` of the arrays' batches, in order.

    The arrays are elements of the data set, as in Keras, instead of captures of the batching
    function, because captured arrays were freed only some epochs later.
    """
    import tensorflow as tf

    def batch(number: Any, whole: tuple[Any, ...]) -> tuple[Any, ...]:
        start = number * batch_size
        return tuple(array[start : start + batch_size] for array in whole)

    steps = tf.data.Dataset.range(math.ceil(len(arrays[0]) / batch_size))
    whole = tf.data.Dataset.from_tensors(arrays).repeat()
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.zip((steps, whole)).map(batch).prefetch(_AHEAD).with_options(options)
