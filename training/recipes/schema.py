"""What a recipe is: everything that decides what a training produces.

A recipe states where it comes from, what accuracy it should reach and what it costs, next to its
numbers. The table of them all is :mod:`training.recipes.catalogue`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from cifar10.card import Parameters
from cifar10.errors import RecipeError
from training.networks.backbones import Backbone


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
class ResidualNetwork:
    """A residual network of two-convolution blocks (He et al., arXiv 1512.03385, section 4.2).

    A 3×3 stem, then stages of blocks; each stage but the first begins by halving the resolution,
    where the shortcut is averaged down and projected (ResNet-D, arXiv 1812.01187). Global average
    pooling, softmax. Plain 3×3 convolutions in multiples of 16 channels: what ONNX Runtime's CPU
    kernels run fastest for their multiplications. Pixels are scaled to -1–1 inside the model.
    """

    widths: tuple[int, ...]
    """Channels of each stage."""
    blocks: tuple[int, ...]
    """Blocks of each stage."""
    mirrored: bool = False
    """The finished model sees the image and its mirror image, and answers for the mean of what it
    pools of both: no more parameters, twice the work. It is trained without, on images mirrored at
    random."""
    mirror_shift: int = 0
    """The mirror image is first moved by so many pixels up and to the left, the other edges
    reflected. One pixel is another phase of every halving of the resolution: the strided
    convolutions see what they step over in the image itself."""


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Stochastic gradient descent, Nesterov momentum, the learning rate set at every step.

    It rises in a straight line from nothing to the phase's ``learning_rate`` and falls to nothing
    on half a cosine (Smith and Topin, arXiv 1708.07120; Loshchilov and Hutter, arXiv 1608.03983).
    """

    rise: float
    """The share of the steps in which it rises, 0–1."""
    momentum: float
    weight_decay: float
    """Decoupled: each step takes this times the learning rate off every weight."""


@dataclass(frozen=True, kw_only=True)
class AdamOneCycle:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101); the learning rate as :class:`OneCycle` has
    it."""

    rise: float
    """The share of the steps in which it rises, 0–1."""
    weight_decay: float
    """Decoupled: each step takes this times the learning rate off every weight."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to training images, each drawn anew for every image and epoch.

    The shares are probabilities, 0–1; see :mod:`training.augmentation`.
    """

    shift: int
    """Pixels, in either direction, edges mirrored."""
    flip: bool
    """Half of the images, left to right."""
    jpeg: float
    """Re-encoded at a quality of 30 to 95."""
    resize: float
    """Shrunk to 16–28 pixels a side and back, or enlarged and back: what a photo's way to 32×32
    can do to it."""
    light: float
    """Brightness and contrast changed by up to a fifth."""
    cutout: int = 0
    """Pixels a side of a square, anywhere, that is made grey in every image (DeVries and Taylor,
    arXiv 1708.04552); 0 does without."""


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """A larger model's answers as part of the target (Hinton et al., arXiv 1503.02531).

    It is asked once about each training image and its mirror image; the mean of both is the answer.
    """

    teacher: str
    """A model in the store, exported."""
    share: float
    """Of the target, 0–1; the rest is the true class."""
    temperature: float
    """Its probabilities are raised to one over this, and brought to a sum of 1 again: above 1, the
    less likely classes count for more."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with one optimizer: Adam at one learning rate, or a schedule.

    A phase starts from the best weights so far and ends after ``epochs``, or earlier: once
    ``patience`` epochs in a row have not raised the best validation accuracy.
    """

    name: str
    epochs: int
    learning_rate: float
    patience: int
    schedule: OneCycle | AdamOneCycle | None = None
    augmentation: Augmentation | None = None
    """In place of the recipe's."""
    taught: bool = True
    """By the recipe's teacher, where it has one."""


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """How far a recipe is cut down to be walked in seconds."""

    epochs: int
    train_images: int
    evaluation_images: int
    """Of validation, and of test."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to make one model. The loss is cross-entropy on the true class, smoothed if so said.

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
    architecture: SimpleCnn | ResidualNetwork | Backbone
    expected_parameters: Parameters
    """Checked whenever the model is built."""
    batch_size: int
    phases: tuple[Phase, ...]
    smoke: Smoke
    augmentation: Augmentation | None = None
    """Of images; a phase that trains on the features of a frozen backbone goes without."""
    label_smoothing: float = 0.0
    """The share of the target that is spread evenly over all classes, 0–1."""
    distillation: Distillation | None = None
    """In the phases that are ``taught``."""
    train_images: int | None = None
    """Only the first so many training images, whose order is that of a hash; None takes all."""

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) != len(names):
            message = f"recipe {self.name!r}: its phases are {names}, expected distinct names"
            raise RecipeError(message)
        if self.train_images is not None and self.train_images < 1:
            message = f"recipe {self.name!r}: it trains on {self.train_images} images"
            raise RecipeError(message)
        for phase in self.phases:
            numbers = (phase.epochs, phase.patience, self.batch_size)
            if min(numbers) < 1 or not phase.learning_rate > 0:
                message = (
                    f"recipe {self.name!r}, phase {phase.name!r}: epochs, patience and batch size "
                    f"are {numbers}, learning rate {phase.learning_rate}; all must be positive"
                )
                raise RecipeError(message)
        self._check_shares()
        architecture = self.architecture
        if isinstance(architecture, Backbone) and len(architecture.trained_layers) != len(names):
            message = (
                f"recipe {self.name!r}: it has {len(names)} phases, but says for "
                f"{len(architecture.trained_layers)} how many layers are trained"
            )
            raise RecipeError(message)

    def _check_shares(self) -> None:
        shares = [self.label_smoothing]
        if self.distillation is not None:
            shares.append(self.distillation.share)
            if not self.distillation.temperature > 0:
                message = f"recipe {self.name!r}: a temperature must be positive"
                raise RecipeError(message)
        pixels = []
        if isinstance(self.architecture, ResidualNetwork):
            pixels.append(self.architecture.mirror_shift)
        augmentations = [self.augmentation, *(phase.augmentation for phase in self.phases)]
        for drawn in augmentations:
            if drawn is not None:
                shares += [drawn.jpeg, drawn.resize, drawn.light]
                pixels += [drawn.shift, drawn.cutout]
        if not (
            0 <= self.label_smoothing < 1
            and all(0 <= share <= 1 for share in shares)
            and min(pixels, default=0) >= 0
        ):
            message = (
                f"recipe {self.name!r}: label smoothing {self.label_smoothing} and augmentation "
                f"{augmentations}; shares must be 0–1 (smoothing below 1), pixels at least 0"
            )
            raise RecipeError(message)

    def augmentation_in(self, phase: Phase) -> Augmentation | None:
        """What is done to images in ``phase``."""
        return phase.augmentation or self.augmentation

    def distillation_in(self, phase: Phase) -> Distillation | None:
        """The teacher's part of the target in ``phase``."""
        return self.distillation if phase.taught else None


SIMPLE_CNN: Final = Recipe(
    name="simple_cnn",
    source="the reference study's own CNN: its test accuracy is 69.37 %, its gap 17.4 points",
    expected_test_accuracy=(0.66, 0.71),
    cost="half a minute an epoch, 8 to 10 epochs, on two cores of an AMD EPYC; no GPU needed",
    architecture=SimpleCnn(filters=(32, 64), dense_units=512),
    expected_parameters=Parameters(total=2_122_186, trainable=2_122_186, non_trainable=0),
    batch_size=64,
    phases=(Phase(name="all", epochs=10, learning_rate=1e-3, patience=3),),
    smoke=Smoke(epochs=2, train_images=1_000, evaluation_images=500),
)
"""The study one-hot encodes its labels and uses categorical cross-entropy. We keep class ids and
use the sparse form of the same loss, in which the one-hot vector is implied: equal numbers."""

_POLISHED: Final = Augmentation(shift=4, flip=True, jpeg=0.15, resize=0.1, light=0.1)

COMPACT: Final = Recipe(
    name="compact",
    source="our own; ResNet-14's shape (He et al., arXiv 1512.03385) cut down to 100,000 "
    "parameters, most of its work at 32×32 and 16×16",
    expected_test_accuracy=(0.86, 0.90),
    cost="60 to 90 s an epoch, 200 epochs, on two cores of an Intel Xeon (Sapphire Rapids); its "
    "teacher must have been trained and exported before",
    architecture=ResidualNetwork(
        widths=(16, 32, 48), blocks=(2, 3, 1), mirrored=True, mirror_shift=1
    ),
    expected_parameters=Parameters(total=99_226, trainable=98_330, non_trainable=896),
    batch_size=128,
    phases=(
        Phase(
            name="labels",
            epochs=70,
            learning_rate=0.15,
            patience=70,
            schedule=OneCycle(rise=0.15, momentum=0.9, weight_decay=1.5e-3),
            taught=False,
        ),
        Phase(
            name="distilled",
            epochs=50,
            learning_rate=0.1,
            patience=50,
            schedule=OneCycle(rise=0.1, momentum=0.9, weight_decay=1.5e-3),
            augmentation=Augmentation(
                shift=4, flip=True, jpeg=0.4, resize=0.15, light=0.15, cutout=8
            ),
        ),
        Phase(
            name="polished",
            epochs=55,
            learning_rate=0.08,
            patience=55,
            schedule=OneCycle(rise=0.05, momentum=0.9, weight_decay=1.5e-3),
            augmentation=_POLISHED,
        ),
        Phase(
            name="polished_again",
            epochs=25,
            learning_rate=0.04,
            patience=25,
            schedule=OneCycle(rise=0.05, momentum=0.9, weight_decay=1.5e-3),
            augmentation=_POLISHED,
        ),
    ),
    smoke=Smoke(epochs=1, train_images=1_000, evaluation_images=500),
    augmentation=Augmentation(shift=3, flip=True, jpeg=0.15, resize=0.1, light=0.1),
    label_smoothing=0.05,
    distillation=Distillation(teacher="mobilenetv2_tuned", share=0.75, temperature=1.5),
)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The same recipe with at most ``epochs`` in each phase."""
    phases = tuple(dataclasses.replace(phase, epochs=epochs) for phase in recipe.phases)
    return dataclasses.replace(recipe, phases=phases)


def smoke_form(recipe: Recipe) -> Recipe:
    """The recipe with its smoke form's epochs, and without a teacher, which would have to be
    trained first."""
    return dataclasses.replace(with_epochs(recipe, recipe.smoke.epochs), distillation=None)


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """All fields, as JSON would give them back; the architecture's type is added.

    What a recipe does not use is left out, so that a new possibility does not make another training
    of every recipe that does without it.
    """
    fields = _as_json(dataclasses.asdict(recipe))
    for key in ("augmentation", "label_smoothing", "distillation", "train_images"):
        if not fields[key]:
            del fields[key]
    for phase in fields["phases"]:
        for key in ("schedule", "augmentation"):
            if phase[key] is None:
                del phase[key]
        if phase["taught"]:
            del phase["taught"]
    for holder in (fields, *fields["phases"]):
        if not holder.get("augmentation", {"cutout": True})["cutout"]:
            del holder["augmentation"]["cutout"]
    for key in ("batch_statistics", "mirrored", "mirror_shift"):
        if not fields["architecture"].get(key, True):
            del fields["architecture"][key]
    fields["architecture"] = {"type": type(recipe.architecture).__name__} | fields["architecture"]
    result: dict[str, Any] = fields
    return result


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    return value
