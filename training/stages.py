"""What each phase of a recipe trains, and on what.

Most recipes train one whole model on pixels. One with a frozen backbone trains only what comes
after the frozen part, on features that are computed once; the whole model, pixels to
probabilities, is put together again in the end.
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
"""Of probabilities: half precision moves them by less than a thousandth, a wrong cache by much."""


@dataclass(frozen=True)
class Inputs:
    """What a phase's model takes: pixels, or features of them, in the order of the splits."""

    train: NDArray[Any]
    validation: NDArray[Any]

    @property
    def are_pixels(self) -> bool:
        """Only pixels can be augmented; features were computed once, of the images as they are."""
        return self.train.dtype == np.uint8


@dataclass(frozen=True)
class Kept:
    """A model from the checkpoint, and the phase that made it."""

    model: keras.Model
    phase: str


class Stages:
    """A recipe whose phases all train the whole model on pixels."""

    weights: WeightsRecord | None = None
    """The pretrained weights that it starts from."""

    def __init__(self, recipe: Recipe, dataset: Dataset, seed: int) -> None:
        self.recipe = recipe
        self.dataset = dataset
        self.seed = seed

    def inputs(self, phase: Phase) -> Inputs:
        """What the model of ``phase`` takes."""
        return Inputs(self.dataset.train.images, self.dataset.validation.images)

    def begin(self, phase: Phase, kept: Kept | None) -> keras.Model:
        """The model that ``phase`` trains, not compiled.

        Args:
            phase: the one that starts.
            kept: the best of the phases before; None in the first.
        """
        if kept is not None:
            return kept.model
        keras.utils.set_random_seed(self.seed)
        model = build_model(self.recipe, for_training=True)
        begin_from_images(model, self.recipe, self.dataset.train.images)
        return model

    def whole(self, kept: Kept) -> keras.Model:
        """The whole model, uint8 (N, H, W, 3) → float32 (N, L), with the weights kept."""
        return in_plain_layers(kept.model, self.recipe)


class BackboneStages(Stages):
    """A recipe on a pretrained backbone; building it loads the weights.

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
        """Features where something is frozen, from the cache or computed now; else pixels."""
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
        """What comes after the frozen part; as a copy, in which stored statistics are used, unless
        the recipe wants those of each batch."""
        if kept is not None:
            self._take(kept)
        part = self._trained_part(phase.name)
        return part if self._architecture.batch_statistics else with_stored_statistics(part)

    def whole(self, kept: Kept) -> keras.Model:
        """The backbone and the head as they were trained, in one model.

        Raises:
            RecipeError: it does not answer as the part that was trained on features.
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

        It shares its layers with the whole model.
        """
        cut = self._cut(phase)
        set_trained_layers(self._built, self._trained_layers(phase))
        return self._built.model if cut is None else cut.trained

    def _cut(self, phase: str) -> Cut | None:
        """Return None where the phase is trained on pixels."""
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
    """Keras' backend, and the policy that layers compute by where it is not float32."""
    backend, policy = keras.backend.backend(), keras.config.dtype_policy().name
    return backend if policy == "float32" else f"{backend}, {policy}"


def weights_file(recipe: Recipe, choice: WeightsChoice) -> WeightsFile | None:
    """The file that ``recipe`` starts from; None where it needs none, or random ones are chosen.

    Raises:
        WeightsError: it cannot be had.
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
    """How ``recipe`` is trained.

    Args:
        recipe: what is trained.
        dataset: on which images.
        seed: of the weights that are drawn.
        file: a backbone's pretrained weights; None takes random ones.
        observer: told of features extracted.
    """
    architecture = recipe.architecture
    if isinstance(architecture, Backbone):
        return BackboneStages(recipe, architecture, dataset, seed, file, observer)
    return Stages(recipe, dataset, seed)
