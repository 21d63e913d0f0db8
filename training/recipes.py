"""What a recipe is: everything that decides what a training produces.

A recipe states where it comes from, what accuracy it should reach and what it costs, next to its
numbers. The table of them all is :mod:`training.catalogue`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from cifar10.card import Parameters
from cifar10.errors import RecipeError
from training.backbones import Backbone


@dataclass(frozen=True, kw_only=True)
class SimpleCnn:
    """Convolution–pool blocks, one hidden dense layer, softmax.

    Every convolution is 3×3, ``same`` padding, ReLU, followed by a 2×2 max-pool. Pixels are scaled
    to 0–1 by a layer inside the model.
    """

    filters: tuple[int, ...]
    """Of each block, from the input on."""
    dense_units: int


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with one optimizer (Adam) and one learning rate.

    A phase starts from the best weights so far and ends after ``epochs``, or earlier: once
    ``patience`` epochs in a row have not raised the best validation accuracy.
    """

    name: str
    epochs: int
    learning_rate: float
    patience: int


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """How far a recipe is cut down to be walked in seconds."""

    epochs: int
    train_images: int
    evaluation_images: int
    """Of validation, and of test."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to make one model. The loss is always cross-entropy on the true class.

    Raises:
        RecipeError: numbers that cannot be trained with.
    """

    name: str
    source: str
    """Who published it, or what it is derived from."""
    expected_test_accuracy: tuple[float, float]
    """Lowest and highest that is no surprise, as fractions, on the JPEG or the official images."""
    cost: str
    """What a training takes, and where that was measured."""
    architecture: SimpleCnn | Backbone
    expected_parameters: Parameters
    """Checked whenever the model is built."""
    batch_size: int
    phases: tuple[Phase, ...]
    smoke: Smoke

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) != len(names):
            message = f"recipe {self.name!r}: its phases are {names}, expected distinct names"
            raise RecipeError(message)
        for phase in self.phases:
            numbers = (phase.epochs, phase.patience, self.batch_size)
            if min(numbers) < 1 or not phase.learning_rate > 0:
                message = (
                    f"recipe {self.name!r}, phase {phase.name!r}: epochs, patience and batch size "
                    f"are {numbers}, learning rate {phase.learning_rate}; all must be positive"
                )
                raise RecipeError(message)
        architecture = self.architecture
        if isinstance(architecture, Backbone) and len(architecture.trained_layers) != len(names):
            message = (
                f"recipe {self.name!r}: it has {len(names)} phases, but says for "
                f"{len(architecture.trained_layers)} how many layers are trained"
            )
            raise RecipeError(message)


SIMPLE_CNN: Final = Recipe(
    name="simple_cnn",
    source="the reference study's own CNN: its test accuracy is 69.37 %, its gap 17.4 points",
    expected_test_accuracy=(0.66, 0.71),
    cost="about a minute an epoch, 8 to 10 epochs, on two cores of an AMD EPYC; no GPU needed",
    architecture=SimpleCnn(filters=(32, 64), dense_units=512),
    expected_parameters=Parameters(total=2_122_186, trainable=2_122_186, non_trainable=0),
    batch_size=64,
    phases=(Phase(name="all", epochs=10, learning_rate=1e-3, patience=3),),
    smoke=Smoke(epochs=2, train_images=1_000, evaluation_images=500),
)
"""The study one-hot encodes its labels and uses categorical cross-entropy. We keep class ids and
use the sparse form of the same loss, in which the one-hot vector is implied: equal numbers."""

_DESCRIPTIVE: Final = ("name", "source", "expected_test_accuracy", "cost", "smoke")
"""Fields that can be reworded without changing what is trained."""


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The same recipe with at most ``epochs`` in each phase."""
    phases = tuple(dataclasses.replace(phase, epochs=epochs) for phase in recipe.phases)
    return dataclasses.replace(recipe, phases=phases)


def smoke_form(recipe: Recipe) -> Recipe:
    """The recipe with its smoke form's epochs."""
    return with_epochs(recipe, recipe.smoke.epochs)


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """All fields, as JSON would give them back; the architecture's type is added."""
    fields = _as_json(dataclasses.asdict(recipe))
    fields["architecture"] = {"type": type(recipe.architecture).__name__} | fields["architecture"]
    result: dict[str, Any] = fields
    return result


def training_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Those of :func:`recipe_fields` that change what is trained: all but the descriptive ones."""
    return {key: value for key, value in fields.items() if key not in _DESCRIPTIVE}


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    return value
