"""Tests of finding weights under every possible name, and of refusing wrong files."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from cifar10.errors import WeightsError
from cifar10.store import ModelStore, file_sha256
from tests.training.tiny import tiny_dataset
from training.networks.backbone_models import BuiltBackbone, build_backbone
from training.networks.backbones import Backbone, Head, WeightsChoice
from training.recipes.catalogue import find_recipe
from training.recipes.schema import smoke_form
from training.run import train
from training.weights import calibrate_random, find_weights, load_weights, weights_sha256

# Keras' TensorFlow backend, not ours: it copies tensors in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CACHED = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{}_no_top.h5"


def architecture(backbone: str = "mobilenetv2", resolution: int = 32) -> Backbone:
    return Backbone(
        backbone=backbone,
        resolution=resolution,
        preprocessing="native",
        head=Head(pooling="average"),
        trained_layers=(0,),
    )


def build(backbone: str = "mobilenetv2", resolution: int = 32) -> BuiltBackbone:
    return build_backbone(architecture(backbone, resolution), "model")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return Keras' own MobileNetV2 with random weights, saved in both of Keras' formats."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(5)
    model = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    model.save_weights(folder / "new.weights.h5")
    write_legacy(model, folder / "legacy.h5")
    np.savez(folder / "arrays.npz", *model.get_weights())
    yield folder
    shutil.rmtree(folder)


def write_legacy(model: keras.Model, path: Path) -> None:
    """Write weights in the format of Keras until version 2, which its server still has."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.4.0"
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group.create_dataset(name, data=np.asarray(weight))
        file.create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0, "S1")


def has_weights_of(built: BuiltBackbone, source: Path) -> None:
    arrays = np.load(source / "arrays.npz")
    for ours, name in zip(built.base.get_weights(), arrays.files, strict=True):
        np.testing.assert_array_equal(ours, arrays[name])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("new.weights.h5", "mobilenetv2.weights.h5"),
        ("new.weights.h5", "mobilenet_v2_imagenet_no_top.weights.h5"),
        ("legacy.h5", CACHED.format(224)),
        ("legacy.h5", "mobilenetv2.weights.h5"),  # renamed by a person
    ],
)
def test_weights_are_found_under_several_file_names(
    tmp_path: Path, source: Path, kind: str, name: str
) -> None:
    shutil.copy(source / kind, tmp_path / name)
    file = find_weights(architecture(), WeightsChoice(tmp_path))
    assert file.path == tmp_path / name
    built = build()
    record = load_weights(built, architecture(), file)
    has_weights_of(built, source)
    assert (record.backbone, record.random) == ("mobilenetv2", False)
    assert record.sha256 == file_sha256(source / kind)
    assert name in record.source


@pytest.mark.parametrize(("resolution", "trained_at"), [(32, 224), (96, 96)])
def test_weights_in_keras_cache_are_found(
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    resolution: int,
    trained_at: int,
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    shutil.copy(source / "legacy.h5", tmp_path / "models" / CACHED.format(trained_at))
    file = find_weights(architecture(resolution=resolution), WeightsChoice())
    built = build(resolution=resolution)
    load_weights(built, architecture(resolution=resolution), file)
    has_weights_of(built, source)


def test_efficientnet_computes_what_keras_does_with_downloaded_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras adds a layer if it loads the weights itself; without it, answers would differ."""
    keras.utils.set_random_seed(1)
    donor = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    normalisation = next(
        layer for layer in donor.layers if isinstance(layer, keras.layers.Normalization)
    )
    normalisation.weights[0].assign([0.485, 0.456, 0.406])
    normalisation.weights[1].assign([0.229, 0.224, 0.225])
    path = tmp_path / "models" / "efficientnetb0_notop.h5"
    path.parent.mkdir()
    write_legacy(donor, path)
    module = keras.src.applications.efficientnet
    monkeypatch.setattr(module.file_utils, "get_file", lambda *_, **__: str(path))
    reference = keras.applications.EfficientNetB0(
        weights="imagenet", include_top=False, input_shape=(32, 32, 3)
    )
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    asked = architecture("efficientnetb0")
    built = build("efficientnetb0")
    load_weights(built, asked, find_weights(asked, WeightsChoice()))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    expected = np.asarray(reference(images.astype(np.float32), training=False))
    found = np.asarray(built.base(images, training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    plain = np.asarray(donor(images.astype(np.float32), training=False))
    assert np.abs(plain - expected).max() > 10 * np.abs(found - expected).max()


@pytest.mark.parametrize("kind", ["new.weights.h5", "legacy.h5"])
@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "other HDF5", "other network"])
def test_a_wrong_weights_file_is_refused_and_nothing_is_written(
    tmp_path: Path, source: Path, kind: str, damage: str
) -> None:
    file = tmp_path / "weights" / "mobilenetv2.weights.h5"
    file.parent.mkdir()
    data = (source / kind).read_bytes()
    match damage:
        case "text":
            file.write_text("404: not found")
        case "empty":
            file.write_bytes(b"")
        case "truncated":
            file.write_bytes(data[: len(data) // 2])
        case "other HDF5":
            with h5py.File(file, "w") as other:
                other["numbers"] = np.zeros(3)
        case "other network":
            image = keras.Input((32, 32, 3))
            network = keras.Model(image, keras.layers.Conv2D(4, 3)(image))
            if kind == "legacy.h5":
                write_legacy(network, file)
            else:
                network.save_weights(file)
    recipe = smoke_form(find_recipe("mobilenetv2_frozen_native"))
    models = tmp_path / "models"
    with pytest.raises(WeightsError, match=r"mobilenetv2\.weights\.h5.*--random-weights"):
        train(recipe, tiny_dataset(), ModelStore(models), weights=WeightsChoice(file.parent))
    assert not models.exists()


def test_a_larger_network_of_the_same_family_is_refused(tmp_path: Path) -> None:
    keras.applications.VGG19(weights=None, include_top=False, input_shape=(32, 32, 3)).save_weights(
        tmp_path / "vgg16.weights.h5"
    )
    asked = architecture("vgg16")
    with pytest.raises(WeightsError, match="20,024,384 parameters, but vgg16"):
        load_weights(build("vgg16"), asked, find_weights(asked, WeightsChoice(tmp_path)))


def test_an_error_about_missing_weights_lists_the_names_tried(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"mobilenetv2\.weights\.h5.*_1\.0_224_no_top"):
        find_weights(architecture(), WeightsChoice(tmp_path))


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        reason = "URL fetch failure"
        raise Exception(reason)  # as Keras does

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.applications, "MobileNetV2", fail)
    with pytest.raises(WeightsError, match=r"URL fetch failure.*CIFAR10_WEIGHTS"):
        find_weights(architecture(), WeightsChoice())


def test_a_partial_download_is_repeated(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "models" / CACHED.format(224)
    cached.parent.mkdir()
    cached.write_bytes(b"")

    def download(**_: object) -> None:
        shutil.copy(source / "legacy.h5", cached)

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.applications, "MobileNetV2", download)
    assert find_weights(architecture(), WeightsChoice()).sha256 == file_sha256(source / "legacy.h5")


def test_random_weights_are_marked_and_distinguish_images() -> None:
    built = build()
    record = calibrate_random(built, architecture(), tiny_dataset().train.images)
    assert record.random
    assert record.sha256 == weights_sha256(built.base)
    features = np.asarray(built.base(tiny_dataset().test.images, training=False))
    assert features.std(axis=0).max() > 0.1
