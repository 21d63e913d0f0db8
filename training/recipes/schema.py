"""What a recipe is: everything that decides what a training produces.

A recipe states where it comes from, what accuracy it should reach and what it costs, next to its
numbers. The table of them all is :mod:`training.recipes.catalogue`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from cifar10.card import Parameters
from cifar10.errors import RecipeError
from training.networks.backbones import Backbone
from training.networks.task import CIFAR10, Task


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
class WhitenedNetwork:
    """The network of "airbench94" (Jordan, arXiv 2404.00498): made to be trained in few epochs.

    The first convolution, 2×2, is fixed and whitens the patches of the training images. Then blocks
    of two 3×3 convolutions, the first followed by a 2×2 max-pool; batch normalization without a
    scale, whose shift learns 64 times as fast; GELU; convolutions begin as the identity. Global
    maximum, a dense layer, softmax. Pixels are scaled to -1–1 inside the model.
    """

    widths: tuple[int, ...]
    """Channels of each block."""
    mirrored: bool = False
    """The finished model sees the image and its mirror image, and answers for the mean of what it
    pools of both: no more parameters, twice the work. It is trained without, on images mirrored at
    random."""
    mirror_shift: int = 0
    """The mirror image is first moved by so many pixels up and to the left, the other edges
    reflected. One pixel is another phase of every halving of the resolution: strided convolutions
    see what they step over in the image itself."""


@dataclass(frozen=True, kw_only=True)
class PooledNetwork:
    """A small residual network that integer kernels run fast.

    One 3×3 convolution of the pixels at full resolution, max-pooled; blocks of two 3×3 convolutions
    at 16×16 (He et al., arXiv 1512.03385); a strided convolution to 8×8 and one more there; global
    average pooling, softmax. Batch normalization has no scale, so that pooling and normalizing may
    change places: it is trained with the pooling first, and kept with the pooling last. Pixels are
    scaled to -1–1 inside the model.
    """

    widths: tuple[int, int]
    """Channels at 16×16 and at 8×8; the first is even."""
    blocks: int
    """Residual blocks at 16×16."""
    mirrored: bool = False
    """As in :class:`WhitenedNetwork`."""
    mirror_shift: int = 0
    """As in :class:`WhitenedNetwork`."""


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
    alternating: bool = False
    """Which images are flipped is drawn once; from then on each is flipped in every other epoch
    (Jordan, arXiv 2404.00498). Only with ``flip``."""
    crop: int = 0
    """Pixels a side of a square, anywhere in the image, that is all that is trained on: at 24 an
    epoch takes about half as long. 0 takes the whole image; other sizes need a network that is
    trained on any, :class:`WhitenedNetwork` or :class:`PooledNetwork`."""
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
    """In place of the recipe's. A phase with one of its own is trained on pixels, even where part
    of the backbone is frozen: that part then runs in every epoch."""
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
    architecture: SimpleCnn | WhitenedNetwork | PooledNetwork | Backbone
    expected_parameters: Parameters
    """Checked whenever the model is built."""
    batch_size: int
    phases: tuple[Phase, ...]
    smoke: Smoke
    augmentation: Augmentation | None = None
    """Of images, in every phase that is trained on pixels; one that trains on the features of a
    frozen backbone goes without."""
    label_smoothing: float = 0.0
    """The share of the target that is spread evenly over all classes, 0–1."""
    distillation: Distillation | None = None
    """In the phases that are ``taught``."""
    task: Task = CIFAR10
    """The images and classes; another than CIFAR-10's for a user's own
    (:mod:`training.recipes.own_images`), to which expectations do not apply."""
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
        if isinstance(self.architecture, WhitenedNetwork | PooledNetwork):
            pixels.append(self.architecture.mirror_shift)
        augmentations = [self.augmentation, *(phase.augmentation for phase in self.phases)]
        for drawn in augmentations:
            if drawn is not None:
                shares += [drawn.jpeg, drawn.resize, drawn.light]
                pixels += [drawn.shift, drawn.cutout, drawn.crop]
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
        for key in ("cutout", "alternating", "crop"):
            if not holder.get("augmentation", {key: True})[key]:
                del holder["augmentation"][key]
    for key in ("batch_statistics", "mirrored", "mirror_shift"):
        if not fields["architecture"].get(key, True):
            del fields["architecture"][key]
    if recipe.task == CIFAR10:
        del fields["task"]
    else:
        del fields["expected_parameters"], fields["expected_test_accuracy"]
    fields["architecture"] = {"type": type(recipe.architecture).__name__} | fields["architecture"]
    result: dict[str, Any] = fields
    return result


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    return value
