"""Networks pretrained on ImageNet, and how recipes use them.

This module does not import Keras, so that the table of recipes can be read without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cifar10.errors import RecipeError

Preprocessing = Literal["unit", "native"]
"""Scaling of the pixels.

``unit`` divides pixels by 255, as the reference study did for every backbone; ``native`` uses the
scaling that each backbone was trained with.
"""

NativePixels = Literal["caffe", "symmetric", "raw"]
"""Pixel range that a backbone was trained with.

``caffe`` is BGR minus ImageNet's mean, about −124 to 151; ``symmetric`` is −1 to 1; ``raw`` is
0–255, scaled inside the network.
"""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A network in ``keras.applications``, without its classifier."""

    title: str
    """Name in publications, which is also the name of its constructor."""
    native: NativePixels
    parameters: int
    """Published number of parameters, without a head."""
    cached_weights: str
    """Name of the file in Keras' cache; ``{pixels}`` is the training resolution."""
    resolutions: tuple[int, ...] = ()
    """Resolutions with separate published weights; all others use those of 224."""
    shared_weights: str | None = None
    """Other name for the same weights in Keras 3's own format."""


BACKBONES: Final[dict[str, Pretrained]] = {
    "resnet50": Pretrained(
        title="ResNet50",
        native="caffe",
        parameters=23_587_712,
        cached_weights="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "resnet101": Pretrained(
        title="ResNet101",
        native="caffe",
        parameters=42_658_176,
        cached_weights="resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "resnet152": Pretrained(
        title="ResNet152",
        native="caffe",
        parameters=58_370_944,
        cached_weights="resnet152_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "vgg16": Pretrained(
        title="VGG16",
        native="caffe",
        parameters=14_714_688,
        cached_weights="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "vgg19": Pretrained(
        title="VGG19",
        native="caffe",
        parameters=20_024_384,
        cached_weights="vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "efficientnetb0": Pretrained(
        title="EfficientNetB0",
        native="raw",
        parameters=4_049_571,
        cached_weights="efficientnetb0_notop.h5",
    ),
    "efficientnetb3": Pretrained(
        title="EfficientNetB3",
        native="raw",
        parameters=10_783_535,
        cached_weights="efficientnetb3_notop.h5",
    ),
    "mobilenetv2": Pretrained(
        title="MobileNetV2",
        native="symmetric",
        parameters=2_257_984,
        cached_weights="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{pixels}_no_top.h5",
        resolutions=(96, 128, 160, 192, 224),
        shared_weights="mobilenet_v2_imagenet_no_top.weights.h5",
    ),
    "mobilenetv3large": Pretrained(
        title="MobileNetV3Large",
        native="raw",
        parameters=2_996_352,
        cached_weights="weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    ),
}
"""Networks by name, as used in recipes and in ``<name>.weights.h5``."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """Head of a backbone: pooling, pairs of dense layer (ReLU) and dropout, softmax."""

    pooling: Literal["flatten", "average"]
    dense_units: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()
    """Share of outputs dropped after each dense layer, 0–1."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pretrained network with a new head.

    Batch normalisation uses its stored mean and variance, in training too, unless
    ``batch_statistics``; its scale and offset are trained where its layer is.

    Raises:
        RecipeError: the network cannot be built or trained as described.
    """

    backbone: str
    """Name of the backbone, a key of :data:`BACKBONES`."""
    resolution: int
    """Pixels per side of the backbone's input. The model resizes the image itself (bilinear)."""
    preprocessing: Preprocessing
    head: Head
    trained_layers: tuple[int, ...]
    """Number of the backbone's last layers trained with the head, for each phase.

    0 keeps the backbone frozen. The number never decreases from one phase to the next.
    """
    batch_statistics: bool = False
    """Whether trained batch normalisation uses each batch's own mean and variance.

    It then keeps a running mean of them for inference, which is Keras' default.
    """

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            message = f"no backbone {self.backbone!r}; there are: {', '.join(BACKBONES)}"
            raise RecipeError(message)
        if self.resolution < 32:
            message = f"a resolution of {self.resolution} is too small: at least 32 is needed"
            raise RecipeError(message)
        if len(self.head.dense_units) != len(self.head.dropout):
            message = (
                f"the head has {len(self.head.dense_units)} dense layers and "
                f"{len(self.head.dropout)} dropouts, expected one for each"
            )
            raise RecipeError(message)
        counts = self.trained_layers
        if not counts or min(counts) < 0 or list(counts) != sorted(counts):
            message = (
                f"trained layers per phase are {counts}, expected one count for each phase, none "
                "smaller than the one before it"
            )
            raise RecipeError(message)

    @property
    def pretrained(self) -> Pretrained:
        """Pretrained network of this backbone."""
        return BACKBONES[self.backbone]


@dataclass(frozen=True)
class WeightsChoice:
    """Choice of the weights that a backbone starts from."""

    directory: Path | None = None
    """Folder of weight files; None means Keras' cache and download."""
    random: bool = False
    """Whether to use random weights: the model's cost is real, but its accuracy is meaningless."""
