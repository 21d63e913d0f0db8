"""Train one epoch as a single program on the device, where Keras runs on JAX.

Keras' ``fit`` starts each step from Python. On a GPU, where a step of a small network takes less
than a millisecond, that is most of an epoch. Here an epoch's images and targets are sent to the
device once (pixels as uint8), and one compiled ``lax.scan`` runs all steps, each of them Keras' own
``train_step``. Afterwards the weights, the optimizer's variables and the metrics are copied back
into the Keras model, so that checkpoints work as usual.

**Equal steps.** A scan cannot have a smaller last step. If the images do not fill it, it is padded
with the epoch's first images, which are in random order: an epoch of 45,000 images at 256 a step
trains on 56 of them twice. These count in the epoch's loss and accuracy too.

**Learning rate.** Keras on JAX reads the optimizer's variables once, at the start of an epoch, so a
callback that assigns the learning rate before each step has no effect there. Here the rates are an
input of the program.

**Several devices.** Each step's images and targets are split evenly among the devices; every device
has the complete state. The program is the same as for one device. XLA partitions it, so that loss,
gradients and batch-normalization statistics are computed over the entire batch for any number of
devices. (Keras' own ``DataParallel`` does the same, but only inside ``fit``.) Between
epochs the state is on the first device alone, where the model is evaluated and saved.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.errors import RecipeError

DeviceFit = Callable[[NDArray[Any], NDArray[Any], NDArray[np.float32]], dict[str, float]]
"""Type of :meth:`DeviceEpochs.fit`."""


def runs_here() -> bool:
    """Whether Keras runs on JAX, the only backend that this module trains on."""
    return str(keras.backend.backend()) == "jax"


def devices_for(batch_size: int, asked: int | None = None) -> int:
    """Return the number of this machine's devices that share each training step.

    Args:
        batch_size: images of a step, which must be divisible by the number of devices.
        asked: number that the user asks for; None: the largest number of GPUs that divides the
            batch.

    Raises:
        RecipeError: there are fewer devices, they cannot share the batch, or Keras does not run on
            JAX.
    """
    if not runs_here():
        if asked in (None, 1):
            return 1
        message = (
            f"{asked} devices asked for, but with Keras on {keras.backend.backend()} a training "
            "uses one: Keras distributes over devices on JAX only. Install jax and set "
            "KERAS_BACKEND=jax"
        )
        raise RecipeError(message)
    import jax

    there = jax.local_devices()
    kind = there[0].platform
    if asked is None:
        most = len(there) if kind != "cpu" else 1
        return max(count for count in range(1, most + 1) if batch_size % count == 0)
    if asked > len(there):
        message = f"{asked} devices asked for; this machine has {len(there)} ({kind})"
        raise RecipeError(message)
    if batch_size % asked:
        message = (
            f"{asked} devices cannot share a step of {batch_size} images evenly; ask for a "
            f"divisor of {batch_size}"
        )
        raise RecipeError(message)
    return asked


class DeviceEpochs:
    """Trains a compiled model, epoch after epoch; the program is compiled at the first one.

    Args:
        model: compiled model.
        batch_size: images of a step, on all devices together.
        devices: number of devices that share each step; see :func:`devices_for`.
    """

    def __init__(self, model: keras.Model, batch_size: int, devices: int = 1) -> None:
        self._model = model
        self._batch_size = batch_size
        self._devices = devices
        self._program: Any = None

    def fit(
        self, inputs: NDArray[Any], targets: NDArray[Any], rates: NDArray[np.float32]
    ) -> dict[str, float]:
        """Train for one epoch, in the order of ``inputs``.

        Args:
            inputs: (N, ...).
            targets: as the model's loss takes them, (N,) or (N, 10).
            rates: the learning rate of each step, float32 (steps,).

        Returns:
            The loss and the metrics of the epoch, by name.
        """
        import jax

        model = self._model
        steps = math.ceil(len(inputs) / self._batch_size)
        if len(rates) != steps:
            message = (
                f"{len(rates)} learning rates for an epoch of {steps} steps; one for each expected"
            )
            raise ValueError(message)
        batches = tuple(self._in_steps(array, steps) for array in (inputs, targets))
        whole, split = self._shardings()
        if self._program is None:
            # As Keras' own fit does first: create the optimizer's variables and the metrics.
            model._symbolic_build(data_batch=tuple(array[0] for array in batches))
            self._program = _epoch_program(model, whole, split)
        model.reset_metrics()
        variables = _variables(model)
        state = tuple([variable.value for variable in some] for some in variables)
        state = jax.device_put(state, whole)
        logs, state = self._program(state, batches, np.asarray(rates, np.float32))
        for some, values in zip(variables, state, strict=True):
            for variable, value in zip(some, values, strict=True):
                # Every device has a full copy; the first one's is used from here on.
                variable.assign(value.addressable_data(0))
        return {name: float(value) for name, value in logs.items()}

    def _shardings(self) -> tuple[Any, Any]:
        """Return the shardings of replicated arrays and of (steps, batch, ...) split by batch."""
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        mesh = jax.sharding.Mesh(np.array(jax.local_devices()[: self._devices]), ("batch",))
        split = PartitionSpec(None, "batch")
        return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, split)

    def _in_steps(self, array: NDArray[Any], steps: int) -> NDArray[Any]:
        """Return ``array`` as (steps, batch, ...), padded with its first elements."""
        missing = steps * self._batch_size - len(array)
        if missing:
            array = np.concatenate([array, array[np.arange(missing) % len(array)]])
        return np.asarray(array).reshape(steps, self._batch_size, *array.shape[1:])


def _variables(model: keras.Model) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Return the variables that a step changes, in the order of Keras' ``train_step``."""
    return (
        list(model.trainable_variables),
        list(model.non_trainable_variables),
        list(model.optimizer.variables),
        list(model.metrics_variables),
    )


def _epoch_program(model: keras.Model, whole: Any, split: Any) -> Any:
    """Return a function (state, (inputs, targets), rates) → (logs, state), compiled on first use.

    The memory of the old state is reused for the new one. Inputs and targets are ``split`` among
    the devices; the rest is ``whole`` on every device.
    """
    import jax

    learning_rate = model.optimizer.learning_rate
    rate_at = next(
        index for index, held in enumerate(model.optimizer.variables) if held is learning_rate
    )

    def step(state: Any, given: Any) -> Any:
        (inputs, targets), rate = given
        trainable, non_trainable, optimizer, metrics = state
        if jax.numpy.issubdtype(inputs.dtype, jax.numpy.floating):  # features, kept in half
            inputs = inputs.astype(keras.config.floatx())
        optimizer = [*optimizer[:rate_at], rate, *optimizer[rate_at + 1 :]]
        state = (trainable, non_trainable, optimizer, metrics)
        logs, after = model.train_step(state, (inputs, targets))
        return tuple(list(some) for some in after), logs

    def epoch(state: Any, batches: Any, rates: Any) -> Any:
        state, logs = jax.lax.scan(step, state, (batches, rates))
        return {name: values[-1] for name, values in logs.items()}, state

    return jax.jit(epoch, donate_argnums=0, in_shardings=(whole, split, whole), out_shardings=whole)
