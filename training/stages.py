"""Models and inputs of each phase of a recipe.

Most recipes train the full model on pixels. A recipe with a frozen backbone trains only the layers
after the frozen part, on features that are computed once. The full model, from pixels to
probabilities, is assembled at the end.
"""

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.card import WeightsRecord
from cifar10.dataset import Dataset
from cifar10.environment import cache_dir
from cifar10.errors import RecipeError
from training.features import FORMAT_VERSION, FeatureKey, extract_features
from training.networks.backbone_models import (
    Cut,
    build_backbone,
    cut_before_trained,
    set_trained_layers,
    with_stored_statistics,
)
from training.networks.backbones import Backbone, WeightsChoice
from training.networks.models import (
    begin_from_images,
    build_model,
    check_parameters,
    in_plain_layers,
)
from training.observer import Observer
from training.recipes.schema import Phase, Recipe
from training.weights import (
    WeightsFile,
    calibrate_random,
    find_weights,
    load_weights,
    weights_sha256,
)

_CALIBRATION_IMAGES: Final = 256

_COMPARED_IMAGES: Final = 256

_COMPARED_TOLERANCE: Final = 0.02
"""Largest accepted difference of probabilities. Half precision changes them by less than a
thousandth, a wrong cache by much more."""


@dataclass(frozen=True)
class Inputs:
    """Inputs of a phase's model: pixels or their features, in the order of the splits."""

    train: NDArray[Any]
    validation: NDArray[Any]

    @property
    def are_pixels(self) -> bool:
        """Whether the inputs are pixels, which can be augmented, and not cached features."""
        return self.train.dtype == np.uint8


@dataclass(frozen=True)
class Kept:
    """A model from the checkpoint, and the phase that made it."""

    model: keras.Model
    phase: str


class Stages:
    """Stages of a recipe whose phases all train the full model on pixels."""

    weights: WeightsRecord | None = None
    """Pretrained weights that the training starts from."""

    def __init__(self, recipe: Recipe, dataset: Dataset, seed: int) -> None:
        self.recipe = recipe
        self.dataset = dataset
        self.seed = seed

    def inputs(self, phase: Phase) -> Inputs:
        """Return the training and validation inputs of ``phase``."""
        return Inputs(self.dataset.train.images, self.dataset.validation.images)

    def begin(self, phase: Phase, kept: Kept | None) -> keras.Model:
        """Return the model that ``phase`` trains, not compiled.

        Args:
            phase: the phase that starts.
            kept: the best model of the phases before; None in the first phase.
        """
        if kept is not None:
            return kept.model
        keras.utils.set_random_seed(self.seed)
        model = build_model(self.recipe, for_training=True)
        begin_from_images(model, self.recipe, self.dataset.train.images)
        return model

    def whole(self, kept: Kept) -> keras.Model:
        """Return the full model, uint8 (N, H, W, 3) → float32 (N, L), with the kept weights."""
        return in_plain_layers(kept.model, self.recipe)


class BackboneStages(Stages):
    """Stages of a recipe with a pretrained backbone, whose weights are loaded on creation.

    Raises:
        RecipeError: the model does not have the parameters that the recipe expects.
        WeightsError: the file does not hold this backbone's weights.
    """

    def __init__(
        self,
        recipe: Recipe,
        architecture: Backbone,
        dataset: Dataset,
        seed: int,
        file: WeightsFile | None,
        observer: Observer,
    ) -> None:
        super().__init__(recipe, dataset, seed)
        self._architecture = architecture
        self._observer = observer
        keras.utils.set_random_seed(seed)
        self._built = build_backbone(architecture, recipe.name, recipe.task)
        check_parameters(self._built.model, recipe)
        if file is None:
            batch = dataset.train.images[:_CALIBRATION_IMAGES]
            self.weights = calibrate_random(self._built, architecture, batch)
        else:
            self.weights = load_weights(self._built, architecture, file)
        self._cuts: dict[str, Cut | None] = {}

    def inputs(self, phase: Phase) -> Inputs:
        """Return features, cached or computed now, if a part is frozen; otherwise pixels."""
        cut = self._cut(phase.name)
        if cut is None:
            return super().inputs(phase)
        features = extract_features(
            cache_dir() / "features",
            self._key(cut),
            cut.frozen,
            self.dataset,
            self._observer.features_extracted,
        )
        return Inputs(features.train, features.validation)

    def begin(self, phase: Phase, kept: Kept | None) -> keras.Model:
        """Return the layers after the frozen part; see :meth:`Stages.begin`.

        Unless the recipe uses batch statistics, it is a copy that uses the stored statistics."""
        if kept is not None:
            self._take(kept)
        part = self._trained_part(phase.name)
        return part if self._architecture.batch_statistics else with_stored_statistics(part)

    def whole(self, kept: Kept) -> keras.Model:
        """Return backbone and head, as trained, in one model.

        Raises:
            RecipeError: its answers differ from those of the part that was trained on features.
        """
        self._take(kept)
        set_trained_layers(self._built, self._architecture.trained_layers[-1])
        model = self._built.model
        phase = next(phase for phase in self.recipe.phases if phase.name == kept.phase)
        features = self.inputs(phase).validation[:_COMPARED_IMAGES]
        images = self.dataset.validation.images[:_COMPARED_IMAGES]
        expected = kept.model.predict(np.asarray(features), verbose=0)
        difference = float(np.abs(model.predict(images, verbose=0) - expected).max())
        if not difference <= _COMPARED_TOLERANCE:
            message = (
                f"recipe {self.recipe.name!r}: the whole model's probabilities differ by up to "
                f"{difference:.3g} from those of the part trained on cached features (at most "
                f"{_COMPARED_TOLERANCE} expected). Remove {cache_dir() / 'features'} and train "
                "again with --restart."
            )
            raise RecipeError(message)
        return model

    def _take(self, kept: Kept) -> None:
        self._trained_part(kept.phase).set_weights(kept.model.get_weights())

    def _trained_part(self, phase: str) -> keras.Model:
        """Return the part that ``phase`` trains, after making its layers trainable.

        It shares its layers with the full model.
        """
        cut = self._cut(phase)
        set_trained_layers(self._built, self._trained_layers(phase))
        return self._built.model if cut is None else cut.trained

    def _cut(self, phase: str) -> Cut | None:
        """Return where the model is cut, or None if the phase trains on pixels."""
        if phase not in self._cuts:
            on_pixels = self.recipe.phases[self._index(phase)].augmentation is not None
            count = self._trained_layers(phase)
            self._cuts[phase] = None if on_pixels else cut_before_trained(self._built, count)
        return self._cuts[phase]

    def _trained_layers(self, phase: str) -> int:
        return self._architecture.trained_layers[self._index(phase)]

    def _index(self, phase: str) -> int:
        return [phase.name for phase in self.recipe.phases].index(phase)

    def _key(self, cut: Cut) -> FeatureKey:
        record, architecture = self.dataset.record, self._architecture
        return FeatureKey(
            format_version=FORMAT_VERSION,
            backbone=architecture.backbone,
            weights_sha256=weights_sha256(cut.frozen),
            layer=cut.layer,
            preprocessing=architecture.preprocessing,
            resolution=architecture.resolution,
            dataset_fingerprint=record.fingerprint,
            train_count=record.train_count,
            validation_count=record.validation_count,
            keras=keras.version(),
            backend=_arithmetic(),
        )


def _arithmetic() -> str:
    """Return Keras' backend, with the precision of layers if it is not float32."""
    backend, policy = keras.backend.backend(), keras.config.dtype_policy().name
    return backend if policy == "float32" else f"{backend}, {policy}"


def weights_file(recipe: Recipe, choice: WeightsChoice) -> WeightsFile | None:
    """Return the file that ``recipe`` starts from; None where it needs none, or random ones are
    chosen.

    Raises:
        WeightsError: the weights are not available.
    """
    if choice.random or not isinstance(recipe.architecture, Backbone):
        return None
    return find_weights(recipe.architecture, choice)


def make_stages(
    recipe: Recipe,
    dataset: Dataset,
    seed: int,
    file: WeightsFile | None,
    observer: Observer,
) -> Stages:
    """Return the stages of ``recipe``.

    Args:
        recipe: the recipe to train.
        dataset: the images to train on.
        seed: seed of the initial weights.
        file: a backbone's pretrained weights; None: random weights.
        observer: receives the progress of feature extraction.
    """
    architecture = recipe.architecture
    if isinstance(architecture, Backbone):
        return BackboneStages(recipe, architecture, dataset, seed, file, observer)
    return Stages(recipe, dataset, seed)
