"""Weights of a backbone: find or download, check and load them.

Three places are searched in this order: a named folder (``--weights-dir``, ``CIFAR10_WEIGHTS``),
whose files may have this project's names (``mobilenetv2.weights.h5``) or Keras'; Keras' cache
(``~/.keras/models``); and Keras' download, which fills that cache. Files from all places are loaded
in the same way.
"""

import hashlib
import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.card import WeightsRecord
from cifar10.errors import WeightsError
from cifar10.store import file_sha256
from training.networks.backbone_models import BuiltBackbone
from training.networks.backbones import Backbone, Pretrained, WeightsChoice

logger = logging.getLogger(__name__)

RANDOM_SOURCE: Final = "random: for measuring cost only"
"""Source, in records, of weights that are not pretrained."""

_DEFAULT_RESOLUTION: Final = 224
"""Training resolution of most backbones."""

_LAYER_GROUPS: Final = ("layers", "_layer_checkpoint_dependencies")
"""Groups in which Keras 3 versions store a model's weights in files."""


@dataclass(frozen=True)
class WeightsFile:
    """An existing file of ImageNet weights."""

    path: Path
    sha256: str
    source: str
    """Origin of the file, for the record."""


def accepted_names(architecture: Backbone) -> tuple[str, ...]:
    """Return the accepted file names for the weights of a backbone, in search order."""
    network = architecture.pretrained
    names = [f"{architecture.backbone}.weights.h5", _cached_name(network, architecture.resolution)]
    if network.shared_weights is not None:
        names.append(network.shared_weights)
    return tuple(names)


def find_weights(architecture: Backbone, choice: WeightsChoice) -> WeightsFile:
    """Return the file of pretrained weights for ``architecture``, downloading it if necessary.

    Raises:
        WeightsError: there is no file, or the download failed; says how to provide one.
    """
    if choice.directory is not None:
        names = accepted_names(architecture)
        for name in names:
            path = choice.directory / name
            if path.is_file():
                return WeightsFile(path, file_sha256(path), f"ImageNet weights, {name}")
        message = (
            f"no weights for {architecture.backbone} in {choice.directory}: expected one of "
            f"{', '.join(names)}. {_remedy(architecture)}"
        )
        raise WeightsError(message)
    path = _keras_cache() / _cached_name(architecture.pretrained, architecture.resolution)
    if path.is_file() and not h5py.is_hdf5(path):
        # Keras downloads directly to this name, so an interruption leaves a partial file.
        logger.warning("%s is damaged; downloading it again", path)
        path.unlink()
    if not path.is_file():
        _download(architecture)
    if not path.is_file():
        message = (
            f"Keras downloaded the weights of {architecture.backbone}, but not to {path} where "
            "they were expected. Name the folder that holds them with --weights-dir"
        )
        raise WeightsError(message)
    return WeightsFile(path, file_sha256(path), f"ImageNet weights from Keras, {path.name}")


def load_weights(built: BuiltBackbone, architecture: Backbone, file: WeightsFile) -> WeightsRecord:
    """Load ``file`` into the backbone; the head keeps its weights.

    Raises:
        WeightsError: the file is not of weights, is truncated, or is of another architecture. The
            model must then be discarded.
    """
    name = architecture.backbone
    legacy = _check_file(file.path, architecture)
    # Keras chooses the format by the suffix, which may be wrong.
    with tempfile.TemporaryDirectory(prefix="cifar10-weights-") as scratch:
        link = Path(scratch) / ("backbone.h5" if legacy else "backbone.weights.h5")
        link.symlink_to(file.path.resolve())
        try:
            built.base.load_weights(link)
        except Exception as error:  # h5py and Keras raise many kinds
            first_line = str(error).strip().splitlines()[0]
            message = (
                f"{file.path} does not hold the weights of {name}: {first_line} "
                f"{_remedy(architecture)}"
            )
            raise WeightsError(message) from error
    for layer in built.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # takes mean and variance from the weights just loaded
    wrong = [
        weight.path
        for weight in built.base.weights
        if not bool(np.isfinite(np.asarray(weight)).all())
    ]
    if wrong:
        message = (
            f"{file.path}: {len(wrong)} weights are not finite, {wrong[0]} first: the file is "
            f"damaged. {_remedy(architecture)}"
        )
        raise WeightsError(message)
    return WeightsRecord(name, file.source, file.sha256, random=False)


def calibrate_random(
    built: BuiltBackbone, architecture: Backbone, images: NDArray[np.uint8]
) -> WeightsRecord:
    """Give random weights batch statistics that fit them, so that signals neither die nor explode.

    Without it, the deepest networks answer the same to every image, and nothing can be compared.

    Args:
        images: uint8 (N, 32, 32, 3): training images, one batch.
    """
    normalisations = [
        layer for layer in built.base.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before = [(layer.trainable, layer.momentum) for layer in normalisations]
    for layer in normalisations:
        layer.trainable, layer.momentum = True, 0.0
    built.base(keras.ops.convert_to_tensor(images), training=True)
    for layer, (trainable, momentum) in zip(normalisations, before, strict=True):
        layer.trainable, layer.momentum = trainable, momentum
    digest = weights_sha256(built.base)
    return WeightsRecord(architecture.backbone, RANDOM_SOURCE, digest, random=True)


def weights_sha256(model: keras.Model) -> str:
    """Return the SHA-256 of all weights of ``model``, in order, as they are in memory."""
    total = hashlib.sha256()
    for weight in model.weights:
        array = np.ascontiguousarray(np.asarray(weight))
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(array.data)
    return total.hexdigest()


def _cached_name(network: Pretrained, resolution: int) -> str:
    trained_at = resolution if resolution in network.resolutions else _DEFAULT_RESOLUTION
    return network.cached_weights.format(pixels=trained_at)


def _keras_cache() -> Path:
    """Return the folder of Keras' downloaded weights, as its ``get_file`` chooses it."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    if home.is_dir() and not os.access(home, os.W_OK):
        home = Path("/tmp/.keras")  # noqa: S108 - Keras' own choice
    return home / "models"


def _download(architecture: Backbone) -> None:
    size = architecture.resolution
    constructor = getattr(keras.applications, architecture.pretrained.title)
    try:
        with warnings.catch_warnings():
            # MobileNetV2 warns that there are no weights of its own for 32 pixels.
            warnings.simplefilter("ignore")
            constructor(weights="imagenet", include_top=False, input_shape=(size, size, 3))
    except Exception as error:  # Keras raises a plain Exception when a download fails
        message = (
            f"the weights of {architecture.backbone} cannot be downloaded ({error}). "
            f"{_remedy(architecture)}"
        )
        raise WeightsError(message) from error


def _check_file(path: Path, architecture: Backbone) -> bool:
    """Return whether ``path`` is in Keras' old format.

    Raises:
        WeightsError: the file is not HDF5, is truncated, is not from Keras, or has another number
            of parameters.
    """
    name, expected = architecture.backbone, architecture.pretrained.parameters
    try:
        with h5py.File(path, "r") as file:
            if "layer_names" in file.attrs:
                return True  # its loader compares layers and shapes one by one
            groups = [file[key] for key in _LAYER_GROUPS if key in file]
            found = sum(_count_values(group) for group in groups)
    except OSError as error:
        message = (
            f"{path} cannot be read as HDF5, so it is damaged, truncated or something else "
            f"({error}). {_remedy(architecture)}"
        )
        raise WeightsError(message) from error
    if not groups:
        message = f"{path} is an HDF5 file, but not one of Keras weights. {_remedy(architecture)}"
        raise WeightsError(message)
    if found != expected:
        message = (
            f"{path} holds {found:,} parameters, but {name} without its classifier has "
            f"{expected:,}: it is another network's. {_remedy(architecture)}"
        )
        raise WeightsError(message)
    return False


def _count_values(group: Any) -> int:
    sizes: list[int] = []

    def visit(_: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            sizes.append(int(found.size))

    group.visititems(visit)
    return sum(sizes)


def _remedy(architecture: Backbone) -> str:
    title = architecture.pretrained.title
    return (
        f"Where there is internet, make it with keras.applications.{title}(include_top=False)"
        f".save_weights('{architecture.backbone}.weights.h5') and name its folder with "
        "--weights-dir or CIFAR10_WEIGHTS; or measure cost alone with --random-weights"
    )
