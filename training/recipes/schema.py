"""Recipe and its parts: everything that determines the result of a training.

A recipe states its source, expected accuracy and cost next to its numbers.
:mod:`training.recipes.catalogue` has the table of all recipes.
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
    """Number of filters of each block, from the input on."""
    dense_units: int


@dataclass(frozen=True, kw_only=True)
class WhitenedNetwork:
    """The network of "airbench94" (Jordan, arXiv 2404.00498), designed to train in few epochs.

    The first convolution, 2×2, is fixed and whitens the patches of the training images. Then blocks
    of two 3×3 convolutions, the first followed by a 2×2 max-pool; batch normalization without a
    scale, whose shift learns 64 times as fast; GELU; convolutions initialised as the identity.
    Global maximum, a dense layer, softmax. Pixels are scaled to -1–1 inside the model.
    """

    widths: tuple[int, ...]
    """Channels of each block."""
    mirrored: bool = False
    """Whether the finished model averages the pooled features of the image and its mirror image: no
    more parameters, twice the work. In training it sees one view, mirrored at random."""
    mirror_shift: int = 0
    """Number of pixels by which the mirror image is first shifted up and left; the opposite edges
    are reflected. With a shift of one pixel, strided convolutions sample the positions that they
    skip in the image itself."""


@dataclass(frozen=True, kw_only=True)
class PooledNetwork:
    """A small residual network that is fast in int8.

    One 3×3 convolution of the pixels at full resolution, max-pooled; blocks of two 3×3 convolutions
    at 16×16 (He et al., arXiv 1512.03385); a strided convolution to 8×8 and one more there; global
    average pooling, softmax. Batch normalization has no scale, so pooling and normalizing commute:
    training pools first, the kept model pools last. Pixels are scaled to -1–1 inside the model.
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

    The rate rises linearly from 0 to the phase's ``learning_rate`` and falls to 0 along half a
    cosine (Smith and Topin, arXiv 1708.07120; Loshchilov and Hutter, arXiv 1608.03983).
    """

    rise: float
    """Share of the steps in which the rate rises, 0–1."""
    momentum: float
    weight_decay: float
    """Decoupled weight decay: each step reduces every weight by this times the learning rate."""


@dataclass(frozen=True, kw_only=True)
class AdamOneCycle:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with the learning rate of
    :class:`OneCycle`."""

    rise: float
    """Share of the steps in which the rate rises, 0–1."""
    weight_decay: float
    """Decoupled weight decay: each step reduces every weight by this times the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training images, drawn for every image in every epoch.

    ``jpeg``, ``resize`` and ``light`` are probabilities, 0–1; see :mod:`training.augmentation`.
    """

    shift: int
    """Largest shift in pixels, in either direction; edges are mirrored."""
    flip: bool
    """Whether half of the images are flipped left to right."""
    jpeg: float
    """Share of images re-encoded as JPEG at a quality of 30 to 95."""
    resize: float
    """Share of images shrunk to 16–28 pixels per side and back, or enlarged and back, as resizing a
    photo to 32×32 can do."""
    light: float
    """Share of images whose brightness and contrast change by up to a fifth."""
    alternating: bool = False
    """Whether each image is flipped in every other epoch, with a random start, instead of at random
    (Jordan, arXiv 2404.00498). Only with ``flip``."""
    crop: int = 0
    """Side in pixels of a random square crop to train on; 0: the full image. At 24 an epoch takes
    about half as long. Only for :class:`WhitenedNetwork` and :class:`PooledNetwork`, which train on
    images of any size."""
    cutout: int = 0
    """Side in pixels of a square at a random place of every image that is made grey (DeVries and
    Taylor, arXiv 1708.04552); 0: none."""


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Knowledge distillation: a larger model's answers as part of the target.

    The teacher classifies each training image and its mirror image once; the answer is the mean of
    both (Hinton et al., arXiv 1503.02531).
    """

    teacher: str
    """Name of an exported model in the store."""
    share: float
    """Share of the teacher's answer in the target, 0–1; the rest is the true class."""
    temperature: float
    """Temperature of the teacher's answers: probabilities are raised to 1 / temperature and
    normalised. Above 1, less likely classes count for more."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the training with one optimizer: Adam at a fixed learning rate, or a schedule.

    A phase starts from the best weights so far and ends after ``epochs``, or earlier: once
    ``patience`` epochs in a row have not raised the best validation accuracy.
    """

    name: str
    epochs: int
    learning_rate: float
    patience: int
    schedule: OneCycle | AdamOneCycle | None = None
    augmentation: Augmentation | None = None
    """Replaces the recipe's augmentation. A phase that sets it trains on pixels, even if part of
    the backbone is frozen: that part then runs in every epoch."""
    taught: bool = True
    """Whether the recipe's teacher, if any, is used in this phase."""


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """Size of a recipe's smoke form, which trains in seconds."""

    epochs: int
    train_images: int
    evaluation_images: int
    """Number of validation images, and of test images."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything needed to train one model. The loss is cross-entropy on the true class.

    Raises:
        RecipeError: a number is out of range; the message names it.
    """

    name: str
    source: str
    """Publication that the recipe follows, or what it is derived from."""
    expected_test_accuracy: tuple[float, float]
    """Lowest and highest plausible accuracy, 0–1, on the JPEG copy or the official images."""
    cost: str
    """Time that a training takes, and the machine it was measured on."""
    architecture: SimpleCnn | WhitenedNetwork | PooledNetwork | Backbone
    expected_parameters: Parameters
    """Checked whenever the model is built."""
    batch_size: int
    phases: tuple[Phase, ...]
    smoke: Smoke
    augmentation: Augmentation | None = None
    """Augmentation in every phase that trains on pixels. Phases that train on the features of a
    frozen backbone have none."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes, 0–1."""
    distillation: Distillation | None = None
    """Teacher in the phases that are ``taught``."""
    task: Task = CIFAR10
    """Image size and number of classes. It differs for a user's own images
    (:mod:`training.recipes.own_images`), to which the expectations do not apply."""
    train_images: int | None = None
    """Number of training images to use, the first in the order of their hashes; None: all."""

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
        """Return the augmentation in ``phase``, or None."""
        return phase.augmentation or self.augmentation

    def distillation_in(self, phase: Phase) -> Distillation | None:
        """Return the distillation in ``phase``, or None if it has no teacher."""
        return self.distillation if phase.taught else None


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Return the same recipe with at most ``epochs`` in each phase."""
    phases = tuple(dataclasses.replace(phase, epochs=epochs) for phase in recipe.phases)
    return dataclasses.replace(recipe, phases=phases)


def smoke_form(recipe: Recipe) -> Recipe:
    """Return the recipe with its smoke form's epochs, and without a teacher, which would have to be
    trained first."""
    return dataclasses.replace(with_epochs(recipe, recipe.smoke.epochs), distillation=None)


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """Return all fields as JSON values; the architecture's type is added.

    Unused fields are left out, so that adding a field does not change the identity of trainings
    that do not use it.
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
