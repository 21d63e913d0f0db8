"""Ablation from the reference study's frozen MobileNetV2 to ``mobilenetv2_tuned``.

Each recipe changes one thing and keeps the backbone, the head and, except for that change, the
budget.

``backbone_mobilenetv2`` and its ``_native`` twin are the first two steps; these are the others.
"""

from typing import Final

from cifar10.card import Parameters
from training.networks.backbones import Backbone, Head, Preprocessing
from training.recipes.schema import Phase, Recipe, Smoke

_BASE: Final = 2_257_984
_HEAD: Final = 1_281 * 256 + 257 * 10

_FROM_BLOCK_13: Final = 1_681_344
"""Number of trainable parameters in the last 38 layers of MobileNetV2."""

_NEVER_TRAINED: Final = 34_112
"""Number of batch-normalisation means and variances in all of MobileNetV2."""

_SMOKE: Final = Smoke(epochs=1, train_images=200, evaluation_images=100)

_AS_COMPARED: Final = Head(pooling="average", dense_units=(256,), dropout=(0.5,))


def _step(
    name: str,
    source: str,
    cost: str,
    expected: tuple[float, float],
    *,
    resolution: int = 96,
    preprocessing: Preprocessing = "native",
    epochs: int = 5,
    finetuned: bool = False,
) -> Recipe:
    trainable = _HEAD + (_FROM_BLOCK_13 if finetuned else 0)
    head = Phase(name="head", epochs=epochs, learning_rate=1e-3, patience=epochs)
    last = Phase(name="from_block_13", epochs=5, learning_rate=1e-4, patience=5)
    return Recipe(
        name=name,
        source=source,
        expected_test_accuracy=expected,
        cost=cost,
        architecture=Backbone(
            backbone="mobilenetv2",
            resolution=resolution,
            preprocessing=preprocessing,
            head=_AS_COMPARED,
            trained_layers=(0, 38) if finetuned else (0,),
        ),
        expected_parameters=Parameters(
            total=_BASE + _HEAD, trainable=trainable, non_trainable=_BASE + _HEAD - trainable
        ),
        batch_size=64,
        phases=(head, last) if finetuned else (head,),
        smoke=_SMOKE,
    )


_LINEAR: Final = 1_280 * 10 + 10

UNFROZEN: Final = Recipe(
    name="mobilenetv2_unfrozen",
    source="what the reference study may have trained when it believed its MobileNetV2 frozen: "
    "everything, batch normalisation with each batch's statistics",
    expected_test_accuracy=(0.2, 0.85),
    cost="about two minutes an epoch, ten epochs, on two cores: an estimate",
    architecture=Backbone(
        backbone="mobilenetv2",
        resolution=32,
        preprocessing="unit",
        head=Head(pooling="flatten"),
        trained_layers=(153,),
        batch_statistics=True,
    ),
    expected_parameters=Parameters(
        total=_BASE + _LINEAR,
        trainable=_BASE + _LINEAR - _NEVER_TRAINED,
        non_trainable=_NEVER_TRAINED,
    ),
    batch_size=64,
    # Its validation accuracy fluctuates, so there is no early stop.
    phases=(Phase(name="head", epochs=10, learning_rate=1e-3, patience=10),),
    smoke=_SMOKE,
)

FEW_IMAGES: Final = Recipe(
    name="mobilenetv2_64px_few",
    source="the two figures that the reference study prints for its frozen MobileNetV2, train "
    "91.8 % and test 51.09 %, from a base that is frozen and 12,810 trained parameters: 64 px and "
    "600 images",
    expected_test_accuracy=(0.47, 0.55),
    cost="a pass of MobileNetV2 at 64 px over 600 training and 5,000 validation images, then a "
    "second an epoch",
    architecture=Backbone(
        backbone="mobilenetv2",
        resolution=64,
        preprocessing="native",
        head=Head(pooling="average"),
        trained_layers=(0,),
    ),
    expected_parameters=Parameters(total=_BASE + _LINEAR, trainable=_LINEAR, non_trainable=_BASE),
    batch_size=64,
    phases=(Phase(name="head", epochs=9, learning_rate=1e-3, patience=9),),
    smoke=_SMOKE,
    train_images=600,
)
"""Recipe for the figures that the study prints for its frozen MobileNetV2.

It was found by training that head on the features of 250 to 10,000 images at 32, 64 and 96 px; see
docs/experiments.md.
"""

ABLATION_RECIPES: Final[tuple[Recipe, ...]] = (
    _step(
        "mobilenetv2_96px_x255",
        "backbone_mobilenetv2 at 96 px, fed x/255",
        "one pass of MobileNetV2 at 96 px over the images, then seconds an epoch",
        (0.5, 0.85),
        preprocessing="unit",
    ),
    _step(
        "mobilenetv2_96px",
        "backbone_mobilenetv2_native at 96 px",
        "one pass of MobileNetV2 at 96 px over the images, then seconds an epoch",
        (0.7, 0.88),
    ),
    *(
        _step(
            f"mobilenetv2_{pixels}px",
            f"mobilenetv2_96px, at {pixels} px (Keras' download has weights for each size)",
            f"one pass of MobileNetV2 at {pixels} px over the images, then seconds an epoch",
            expected,
            resolution=pixels,
        )
        for pixels, expected in ((64, (0.4, 0.75)), (128, (0.7, 0.9)), (160, (0.7, 0.9)))
    ),
    _step(
        "mobilenetv2_96px_long",
        "mobilenetv2_96px, its head trained ten times as long",
        "as mobilenetv2_96px, whose features it takes, and a few minutes: an estimate",
        (0.7, 0.88),
        epochs=50,
    ),
    _step(
        "mobilenetv2_96px_finetuned",
        "mobilenetv2_96px, its last 38 layers trained too (from block 13 on)",
        "as mobilenetv2_96px, another pass, and about a minute an epoch: an estimate",
        (0.75, 0.92),
        finetuned=True,
    ),
    UNFROZEN,
    FEW_IMAGES,
)
