"""Our own recipes and the study's CNN: all that do not belong to the study's backbones."""

from typing import Final

from cifar10.card import Parameters
from training.networks.backbones import Backbone, Head
from training.recipes.schema import (
    AdamOneCycle,
    Augmentation,
    Distillation,
    OneCycle,
    Phase,
    PooledNetwork,
    Recipe,
    SimpleCnn,
    Smoke,
    WhitenedNetwork,
)

SIMPLE_CNN: Final = Recipe(
    name="simple_cnn",
    source="the reference study's own CNN: its test accuracy is 69.37 %, its gap 17.4 points",
    expected_test_accuracy=(0.68, 0.74),
    cost="half a minute an epoch, 8 to 10 epochs, on two cores of an AMD EPYC; no GPU needed",
    architecture=SimpleCnn(filters=(32, 64), dense_units=512),
    expected_parameters=Parameters(total=2_122_186, trainable=2_122_186, non_trainable=0),
    batch_size=64,
    phases=(Phase(name="all", epochs=10, learning_rate=1e-3, patience=3),),
    smoke=Smoke(epochs=2, train_images=1_000, evaluation_images=500),
)
"""The study one-hot encodes its labels and uses categorical cross-entropy. We keep class ids and
use the sparse form of the same loss, which gives equal numbers."""

_SAVED_AGAIN: Final = 0.1
"""Share of images that are recompressed, and of those that are resized or relit. Larger shares cost
accuracy on clean images (docs/experiments.md)."""

COMPACT: Final = Recipe(
    name="compact",
    source="our own: at most 100,000 parameters and faster than simple_cnn in float; first layer, "
    "normalization and flips after Jordan, arXiv 2404.00498",
    expected_test_accuracy=(0.89, 0.91),
    cost="24 epochs of crops, 36 s each, and 100 of whole images, 60 s each, on two cores of an "
    "AMD EPYC (AVX2) of which other work took a quarter: two hours; its teacher must have been "
    "trained and exported before",
    architecture=PooledNetwork(widths=(32, 64), blocks=2, mirrored=True, mirror_shift=1),
    expected_parameters=Parameters(total=94_538, trainable=93_962, non_trainable=576),
    batch_size=256,
    phases=(
        Phase(
            name="cropped",
            epochs=24,
            learning_rate=0.3,
            patience=24,
            schedule=OneCycle(rise=0.2, momentum=0.9, weight_decay=4e-3),
            augmentation=Augmentation(
                shift=0,
                flip=True,
                alternating=True,
                crop=24,
                jpeg=_SAVED_AGAIN / 2,
                resize=_SAVED_AGAIN / 2,
                light=_SAVED_AGAIN / 2,
            ),
            taught=False,
        ),
        Phase(
            name="whole",
            epochs=10,
            learning_rate=0.15,
            patience=10,
            schedule=OneCycle(rise=0.1, momentum=0.9, weight_decay=3e-3),
            taught=False,
        ),
        Phase(
            name="longer",
            epochs=90,
            learning_rate=0.25,
            patience=90,
            schedule=OneCycle(rise=0.1, momentum=0.9, weight_decay=1.5e-3),
        ),
    ),
    smoke=Smoke(epochs=1, train_images=1_000, evaluation_images=500),
    augmentation=Augmentation(
        shift=3,
        flip=True,
        alternating=True,
        jpeg=_SAVED_AGAIN,
        resize=_SAVED_AGAIN,
        light=_SAVED_AGAIN,
    ),
    label_smoothing=0.05,
    distillation=Distillation(teacher="whitened_cnn", share=0.75, temperature=1.0),
)

MOBILENETV2_HEAD: Final = Recipe(
    name="mobilenetv2_head",
    source="our own, for a user's own images: one layer on the features of a frozen MobileNetV2",
    expected_test_accuracy=(0.7, 0.88),
    cost="one pass of MobileNetV2 at 160 px over the images, 10 to 20 ms each on one core, then a "
    "second an epoch for every few thousand images",
    architecture=Backbone(
        backbone="mobilenetv2",
        resolution=160,
        preprocessing="native",
        head=Head(pooling="average"),
        trained_layers=(0,),
    ),
    expected_parameters=Parameters(total=2_270_794, trainable=12_810, non_trainable=2_257_984),
    batch_size=64,
    phases=(
        Phase(
            name="head",
            epochs=25,
            learning_rate=3e-3,
            patience=25,
            schedule=AdamOneCycle(rise=0.1, weight_decay=0.05),
        ),
    ),
    smoke=Smoke(epochs=1, train_images=200, evaluation_images=100),
    label_smoothing=0.05,
)
"""Few images are enough to train one layer, but not a network. The frozen features take minutes to
compute, are cached, and suit images that look like photographs."""

WHITENED_CNN: Final = Recipe(
    name="whitened_cnn",
    source='"airbench94" (Jordan, arXiv 2404.00498; 94.0 % in 9.9 epochs of a GPU), narrower and '
    "without its lookahead: the most accurate network that two cores train from nothing in an hour",
    expected_test_accuracy=(0.92, 0.945),
    cost="8 epochs of 45,000 images, 8.5 ms of one core an image (AMD EPYC, AVX2): 27 minutes on "
    "two cores with nothing else running",
    architecture=WhitenedNetwork(widths=(64, 192, 192), mirrored=True, mirror_shift=1),
    expected_parameters=Parameters(total=1_161_586, trainable=1_159_458, non_trainable=2_128),
    batch_size=512,
    phases=(
        Phase(
            name="all",
            epochs=8,
            learning_rate=0.75,
            patience=8,
            schedule=OneCycle(rise=0.23, momentum=0.85, weight_decay=8.9e-3),
        ),
    ),
    smoke=Smoke(epochs=1, train_images=1_024, evaluation_images=500),
    augmentation=Augmentation(
        shift=2, flip=True, alternating=True, jpeg=0.0, resize=0.0, light=0.0
    ),
    label_smoothing=0.1,
)
"""The learning rate is the paper's for 1,024 images a step, halved for 512. The paper decays
through the gradient, this recipe decays the weights: with this momentum, by 1 / (1 - 0.85) times as
much."""
