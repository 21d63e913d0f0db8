"""The reference study's transfer-learning recipes, and the improved one that it aimed for.

Each of the study's models exists twice: with x/255 as input, as in the study, and as ``_native``,
with the input range of its backbone's pretraining; nothing else differs. The study's figures are
those of its own table, as fractions of the test images.
"""

from typing import Final, Literal

from cifar10.card import Parameters
from training.networks.backbones import BACKBONES, Backbone, Head, Preprocessing
from training.recipes.schema import AdamOneCycle, Augmentation, Phase, Recipe, Smoke

_LINEAR_PARAMETERS: Final = 1_280 * 10 + 10
"""Number of parameters of one dense layer on MobileNetV2's flattened 1 × 1 × 1,280."""

_LAST_TEN_PARAMETERS: Final = 732_480
"""Number of trainable parameters in the last ten layers of MobileNetV2 (from
block_16_expand_BN)."""

_FEATURES: Final = {
    "resnet50": 2_048,
    "resnet101": 2_048,
    "resnet152": 2_048,
    "vgg16": 512,
    "vgg19": 512,
    "efficientnetb0": 1_280,
    "efficientnetb3": 1_536,
    "mobilenetv2": 1_280,
    "mobilenetv3large": 960,
}
"""Channels of each backbone's last feature map."""

_STUDY_ACCURACY: Final = {
    "resnet50": "27.02 %",
    "resnet101": "26.10 %",
    "resnet152": "26.31 %",
    "vgg16": "about 25 %",
    "vgg19": "about 24 %",
    "efficientnetb0": "about 23 %",
    "efficientnetb3": "about 22 %",
    "mobilenetv2": "about 21 %",
    "mobilenetv3large": "about 20 %",
}

_SMOKE: Final = Smoke(epochs=1, train_images=400, evaluation_images=100)

_LINEAR_HEAD: Final = Head(pooling="flatten")
_STUDY_HEAD: Final = Head(pooling="average", dense_units=(256,), dropout=(0.5,))


def _twin(preprocessing: Preprocessing) -> tuple[str, str]:
    """Return suffixes for the recipe's name and source."""
    if preprocessing == "unit":
        return "", "fed x/255 as there"
    return "_native", "but fed what the backbone was trained on"


def _frozen(preprocessing: Preprocessing, expected: tuple[float, float]) -> Recipe:
    suffix, how = _twin(preprocessing)
    return Recipe(
        name=f"mobilenetv2_frozen{suffix}",
        source=f"the reference study's frozen MobileNetV2 (train 91.8 %, test 51.09 %), {how}",
        expected_test_accuracy=expected,
        cost="one pass of MobileNetV2 at 32 px over the images, then seconds an epoch",
        architecture=Backbone(
            backbone="mobilenetv2",
            resolution=32,
            preprocessing=preprocessing,
            head=_LINEAR_HEAD,
            trained_layers=(0,),
        ),
        expected_parameters=Parameters(
            total=2_257_984 + _LINEAR_PARAMETERS,
            trainable=_LINEAR_PARAMETERS,
            non_trainable=2_257_984,
        ),
        batch_size=64,
        phases=(Phase(name="head", epochs=10, learning_rate=1e-3, patience=3),),
        smoke=_SMOKE,
    )


def _finetuned(preprocessing: Preprocessing, expected: tuple[float, float]) -> Recipe:
    suffix, how = _twin(preprocessing)
    trainable = _LINEAR_PARAMETERS + _LAST_TEN_PARAMETERS
    return Recipe(
        name=f"mobilenetv2_finetuned{suffix}",
        source=f"the reference study's fine-tuned MobileNetV2, {how}",
        expected_test_accuracy=expected,
        cost="two passes of MobileNetV2 at 32 px over the images, then seconds an epoch",
        architecture=Backbone(
            backbone="mobilenetv2",
            resolution=32,
            preprocessing=preprocessing,
            head=_LINEAR_HEAD,
            trained_layers=(0, 10),
        ),
        expected_parameters=Parameters(
            total=2_257_984 + _LINEAR_PARAMETERS,
            trainable=trainable,
            non_trainable=2_257_984 - _LAST_TEN_PARAMETERS,
        ),
        batch_size=64,
        phases=(
            Phase(name="head", epochs=10, learning_rate=1e-3, patience=3),
            Phase(name="last_ten", epochs=10, learning_rate=1e-4, patience=3),
        ),
        smoke=_SMOKE,
    )


def _comparison(
    backbone: str, preprocessing: Preprocessing, expected: tuple[float, float], cost: str
) -> Recipe:
    suffix, how = _twin(preprocessing)
    network = BACKBONES[backbone]
    head = (_FEATURES[backbone] + 1) * 256 + 257 * 10
    return Recipe(
        name=f"backbone_{backbone}{suffix}",
        source=f"the reference study's {network.title} ({_STUDY_ACCURACY[backbone]}), {how}",
        expected_test_accuracy=expected,
        cost=cost,
        architecture=Backbone(
            backbone=backbone,
            resolution=32,
            preprocessing=preprocessing,
            head=_STUDY_HEAD,
            trained_layers=(0,),
        ),
        expected_parameters=Parameters(
            total=network.parameters + head, trainable=head, non_trainable=network.parameters
        ),
        batch_size=64,
        # The study ran all five epochs: no early stop.
        phases=(Phase(name="head", epochs=5, learning_rate=1e-3, patience=5),),
        smoke=_SMOKE,
    )


Range = tuple[float, float]

_COMPARED: Final[tuple[tuple[str, Range, Range, int], ...]] = (
    ("resnet50", (0.15, 0.45), (0.40, 0.75), 98),
    ("resnet101", (0.15, 0.45), (0.40, 0.75), 210),
    ("resnet152", (0.15, 0.45), (0.40, 0.75), 326),
    ("vgg16", (0.15, 0.65), (0.40, 0.75), 230),
    ("vgg19", (0.15, 0.65), (0.40, 0.75), 293),
    ("efficientnetb0", (0.11, 0.45), (0.25, 0.70), 30),
    ("efficientnetb3", (0.11, 0.45), (0.25, 0.70), 69),
    ("mobilenetv2", (0.31, 0.37), (0.25, 0.35), 26),
    ("mobilenetv3large", (0.11, 0.45), (0.25, 0.70), 25),
)
"""Backbone, accuracy with x/255, accuracy with native preprocessing, seconds for one pass."""


def _comparisons(preprocessing: Literal["unit", "native"]) -> tuple[Recipe, ...]:
    return tuple(
        _comparison(
            backbone,
            preprocessing,
            unit if preprocessing == "unit" else native,
            f"one pass over the images (about {seconds} s), then seconds an epoch, on two cores",
        )
        for backbone, unit, native, seconds in _COMPARED
    )


_TUNED_HIDDEN: Final = 1_281 * 256 + 257 * 128 + 129 * 10

_BEFORE_BLOCK_3: Final = 15_792
"""Number of weights of MobileNetV2's stem and first three blocks that training could change."""

MOBILENETV2_TUNED: Final = Recipe(
    name="mobilenetv2_tuned",
    source="the reference study's own list of improvements, done: it hoped for 65–75 %",
    expected_test_accuracy=(0.93, 0.96),
    cost="67 minutes on two cores (AMD EPYC, beside light other work)",
    architecture=Backbone(
        backbone="mobilenetv2",
        resolution=128,
        preprocessing="native",
        head=Head(pooling="average", dense_units=(256, 128), dropout=(0.5, 0.3)),
        # The head; from block 6 on; from block 3 on.
        trained_layers=(0, 100, 127),
    ),
    expected_parameters=Parameters(
        total=2_257_984 + _TUNED_HIDDEN,
        trainable=2_223_872 - _BEFORE_BLOCK_3 + _TUNED_HIDDEN,
        non_trainable=34_112 + _BEFORE_BLOCK_3,
    ),
    batch_size=64,
    phases=(
        Phase(name="head", epochs=5, learning_rate=1e-3, patience=5),
        Phase(
            name="from_block_6",
            epochs=2,
            learning_rate=5e-4,
            patience=2,
            schedule=AdamOneCycle(rise=0.1, weight_decay=0.02),
        ),
        Phase(
            name="from_block_3",
            epochs=6,
            learning_rate=2e-4,
            patience=6,
            schedule=AdamOneCycle(rise=0.1, weight_decay=0.02),
            augmentation=Augmentation(
                shift=3, flip=True, alternating=True, jpeg=0.1, resize=0.1, light=0.1
            ),
        ),
    ),
    label_smoothing=0.05,
    smoke=Smoke(epochs=1, train_images=200, evaluation_images=100),
)
"""Training starts at block 3. The stem and blocks before it have 0.7 % of the backbone's weights,
but the largest feature maps: training them too costs 1.7 times as much (docs/experiments.md)."""

STUDY_RECIPES: Final[tuple[Recipe, ...]] = (
    _frozen("unit", (0.28, 0.33)),
    _frozen("native", (0.25, 0.31)),
    _finetuned("unit", (0.45, 0.60)),
    _finetuned("native", (0.25, 0.60)),
    *_comparisons("unit"),
    *_comparisons("native"),
    MOBILENETV2_TUNED,
)
"""Recipes in the study's order; the native variants of the nine backbones follow all nine."""
