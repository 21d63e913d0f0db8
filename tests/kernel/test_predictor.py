"""Tests of the predictor and of the device it reports."""

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from cifar10 import cuda_batches
from cifar10 import predictor as predictor_module
from cifar10.errors import GoldenMismatchError, InvalidGraphError, ProviderUnavailableError
from cifar10.golden import golden_images
from cifar10.predictor import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    Predictor,
    PredictorOptions,
    cuda_options,
)
from cifar10.store import ModelStore
from tests.conftest import add_model, linear_onnx

IMAGES = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


class FakeSession:
    """Stands in for ONNX Runtime's session and reports the given providers."""

    def __init__(self, providers: list[str]) -> None:
        self.real = ort.InferenceSession(linear_onnx(0), providers=[CPU_PROVIDER])
        self.providers = providers

    def get_providers(self) -> list[str]:
        return self.providers

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


@pytest.fixture
def on_cpu() -> Predictor:
    return Predictor(linear_onnx(0), PredictorOptions(device="cpu"))


def test_probabilities(on_cpu):
    found = on_cpu.predict(IMAGES)
    weights = np.random.default_rng(0).normal(0, 0.05, (3072, 10)).astype(np.float32)
    logits = IMAGES.reshape(5, -1).astype(np.float32) / np.float32(255) @ weights
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert (found.shape, found.dtype) == ((5, 10), np.float32)
    assert np.allclose(found, expected, atol=1e-5)


def test_an_image_gets_the_same_answer_in_any_batch(on_cpu):
    alone = np.concatenate([on_cpu.predict(IMAGES[i : i + 1]) for i in range(5)])
    assert np.allclose(on_cpu.predict(IMAGES), alone, atol=1e-6)


@pytest.mark.parametrize(
    "images",
    [IMAGES.astype(np.float32), IMAGES[0], IMAGES[:, :16], np.zeros((1, 3, 32, 32), np.uint8)],
)
def test_anything_but_uint8_tiles_is_refused(on_cpu, images):
    with pytest.raises(ValueError, match=r"uint8 images of shape \(N, 32, 32, 3\)"):
        on_cpu.predict(images)


def test_warm_up_runs_each_size(on_cpu, monkeypatch):
    seen = []
    monkeypatch.setattr(on_cpu, "predict", lambda images: seen.append(len(images)))
    on_cpu.warm_up([1, 8, 32])
    assert seen == [1, 8, 32]


def test_golden(tiny_store):
    stored = ModelStore(tiny_store).load("tiny_a")
    card = stored.card
    Predictor(stored.onnx).check_card(card)
    with pytest.raises(GoldenMismatchError, match="away from the card's"):
        Predictor(linear_onnx(9)).check_card(card)
    short = dataclasses.replace(card.golden, probabilities=card.golden.probabilities[:1])
    with pytest.raises(GoldenMismatchError):
        Predictor(stored.onnx).check_card(dataclasses.replace(card, golden=short))


def test_the_golden_images_never_change():
    """Every card stores their answers, so a changed picture would make every model unready."""
    images = golden_images()
    assert (images.shape, images.dtype) == ((4, 32, 32, 3), np.uint8)
    assert int(images.astype(np.uint64).sum()) == 1_590_272
    assert images[1, 5, 7].tolist() == [99, 26, 226]
    larger = golden_images((48, 64, 3))
    assert np.array_equal(larger[:, :32, :32], images)
    assert int(larger.astype(np.uint64).sum()) == 4_748_032


def test_a_model_of_other_images_and_classes(tmp_path):
    labels = ("Rose", "Tulpe", "none")
    card = add_model(tmp_path, "flowers", linear_onnx(0, (48, 64, 3), 3), labels=labels)
    assert ModelStore(tmp_path).card("flowers") == card
    assert (card.height, card.width, card.image_shape) == (48, 64, (48, 64, 3))
    assert card.has_rejection
    predictor = Predictor(ModelStore(tmp_path).load("flowers").onnx)
    assert (predictor.image_shape, predictor.class_count) == ((48, 64, 3), 3)
    predictor.warm_up((1, 2))
    predictor.check_card(card)
    images = np.random.default_rng(3).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    found = predictor.predict(images)
    assert found.shape == (5, 3)
    bound = cuda_batches.BucketedRuns(lambda: predictor._session, (1, 4), "cpu")
    assert np.allclose(bound.run(images), found, atol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(N, 48, 64, 3\)"):
        predictor.predict(IMAGES)


@pytest.mark.parametrize(("shape", "classes"), [((32, 64, 3), 10), ((32, 32, 3), 9)])
def test_a_card_of_another_shape_is_refused(tiny_store, shape, classes):
    card = ModelStore(tiny_store).card("tiny_a")
    with pytest.raises(InvalidGraphError, match=r"but its card says \(-1, 32, 32, 3\)"):
        Predictor(linear_onnx(0, shape, classes)).check_card(card)


def test_a_predictor_on_the_cpu_reports_cpu(on_cpu):
    assert (on_cpu.device, on_cpu.provider, on_cpu.providers) == (
        "cpu",
        CPU_PROVIDER,
        (CPU_PROVIDER,),
    )


def test_auto_without_a_driver_is_cpu_and_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(predictor_module, "nvidia_driver_present", lambda: False)
    with caplog.at_level("INFO"):
        assert Predictor(linear_onnx(0)).device == "cpu"
    assert "executing on CPUExecutionProvider" in caplog.text


@pytest.mark.skipif(
    CUDA_PROVIDER in ort.get_available_providers() and predictor_module.nvidia_driver_present(),
    reason="this machine may really have CUDA",
)
def test_cuda_that_cannot_execute_is_an_error():
    """Uses the real library on a machine without a GPU, where it still lists CUDA."""
    with pytest.raises(ProviderUnavailableError, match="cuda"):
        Predictor(linear_onnx(0), PredictorOptions(device="cuda"))


@pytest.mark.parametrize(("reported", "accepted"), [(CUDA_PROVIDER, True), (CPU_PROVIDER, False)])
def test_only_the_session_decides_whether_cuda_is_used(monkeypatch, reported, accepted):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    monkeypatch.setattr(predictor_module, "_preload_cuda", lambda: None)
    asked = []

    def fake(onnx_bytes, options, providers, *, cpu_fallback=True):
        asked.append((providers, cpu_fallback))
        return FakeSession([reported])

    monkeypatch.setattr(predictor_module, "_session", fake)
    if accepted:
        assert Predictor(linear_onnx(0), PredictorOptions(device="cuda")).device == "cuda"
    else:
        with pytest.raises(ProviderUnavailableError, match="would not run on CUDA"):
            Predictor(linear_onnx(0), PredictorOptions(device="cuda"))
    ((providers, cpu_fallback),) = asked
    assert providers == [(CUDA_PROVIDER, cuda_options(PredictorOptions(device="cuda")))]
    assert not cpu_fallback


def test_the_options_of_the_cuda_provider():
    told = cuda_options(PredictorOptions("cuda", cuda_device_id=1, cuda_memory_bytes=1 << 30))
    assert told["device_id"] == "1"
    assert told["gpu_mem_limit"] == str(1 << 30)
    assert told["arena_extend_strategy"] == "kSameAsRequested"
    assert "gpu_mem_limit" not in cuda_options(PredictorOptions("cuda"))


def bind_memory_of_the_cpu(monkeypatch):
    memory = cuda_batches._memory
    monkeypatch.setattr(
        cuda_batches, "_memory", lambda shape, kind, *_: memory(shape, kind, "cpu", 0)
    )


def test_on_cuda_each_bucket_has_a_session_for_its_size_only(monkeypatch):
    """Uses CPU sessions that report CUDA; all other code is real."""
    plain = Predictor(linear_onnx(0), PredictorOptions("cpu"))
    sizes = {}

    class CountedSession(FakeSession):
        def run_with_iobinding(self, binding):
            self.real.run_with_iobinding(binding)
            (output,) = binding.get_outputs()
            sizes.setdefault(id(self), []).append(output.shape()[0])

    opened = []

    def fake(*_, **__):
        opened.append(CountedSession([CUDA_PROVIDER]))
        return opened[-1]

    bind_memory_of_the_cpu(monkeypatch)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    monkeypatch.setattr(predictor_module, "_preload_cuda", lambda: None)
    monkeypatch.setattr(predictor_module, "_session", fake)
    predictor = Predictor(linear_onnx(0), PredictorOptions("cuda", cuda_buckets=(1, 4)))
    for count in (1, 3, 4, 5):
        found = predictor.predict(IMAGES[:count])
        assert found.shape == (count, 10)
        assert np.allclose(found, plain.predict(IMAGES[:count]), atol=1e-6)
    assert len(opened) == 2
    assert sorted(sizes.values()) == [[1, 1], [4, 4, 4]]


def test_a_second_session_on_another_provider_is_an_error(monkeypatch):
    monkeypatch.setattr(predictor_module, "nvidia_driver_present", lambda: True)
    monkeypatch.setattr(predictor_module, "_preload_cuda", lambda: None)
    sessions = iter([FakeSession([CUDA_PROVIDER]), FakeSession([CPU_PROVIDER])])
    monkeypatch.setattr(predictor_module, "_session", lambda *_, **__: next(sessions))
    bind_memory_of_the_cpu(monkeypatch)
    with pytest.raises(ProviderUnavailableError, match="a second session"):
        Predictor(linear_onnx(0), PredictorOptions("auto", cuda_buckets=(1, 4)))


def test_on_the_cpu_batches_keep_their_size():
    predictor = Predictor(linear_onnx(0), PredictorOptions("cpu", cuda_buckets=(1, 4)))
    assert predictor._bucketed is None


def test_cuda_without_a_cuda_build_is_an_error(monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU_PROVIDER])
    with pytest.raises(ProviderUnavailableError, match="built without CUDA"):
        Predictor(linear_onnx(0), PredictorOptions(device="cuda"))


def test_bytes_that_are_not_a_model_are_refused():
    with pytest.raises(InvalidGraphError, match="cannot load"):
        Predictor(b"not a model")


def graph(input_type: int, input_shape: list[object], width: int) -> bytes:
    weights = numpy_helper.from_array(np.zeros((3072, width), np.float32), "weights")
    shape = numpy_helper.from_array(np.array([-1, 3072], np.int64), "shape")
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["probabilities"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", input_type, input_shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", width])],
        [weights, shape],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        graph(TensorProto.FLOAT, ["n", 32, 32, 3], 10),
        graph(TensorProto.UINT8, ["n", 3, 32, 32], 10),
        graph(TensorProto.UINT8, ["n", 1, 1024, 3], 10),
        graph(TensorProto.UINT8, ["n", "height", 32, 3], 10),
        graph(TensorProto.UINT8, ["n", 32, 32, 3], 1),
        graph(TensorProto.UINT8, ["n", 32, 32, 3], 1001),
    ],
)
def test_a_graph_that_violates_the_contract_is_refused(data):
    with pytest.raises(InvalidGraphError, match="the contract is"):
        Predictor(data)


def test_weights_in_other_files_are_refused(tmp_path):
    model = onnx.load_from_string(linear_onnx(0))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(InvalidGraphError, match="external"):
        Predictor(path.read_bytes())


@pytest.mark.parametrize(
    "overlong", [b"\x0a\x88\x00", b"\x8a\x80\x00\x08", b"\x8a\x00\x88\x80\x80\x00"]
)
def test_external_data_behind_overlong_varints_is_refused(overlong):
    """Protobuf accepts a field's number and length with redundant trailing zero bytes."""
    spoiled = _with_external_data(linear_onnx(0), overlong)
    plain = _with_external_data(linear_onnx(0), b"\x0a\x08")
    assert onnx.load_from_string(spoiled) == onnx.load_from_string(plain)
    with pytest.raises(InvalidGraphError, match="external"):
        Predictor(spoiled)


def _with_external_data(data: bytes, before: bytes) -> bytes:
    """Return ``data`` with another constant, stored in a file, and with ``before`` in front of
    "location"."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    entry = before + b"location" + field(2, b"weights")
    tensor = b"\x08\x01\x10\x01" + field(8, b"extra") + field(13, entry) + b"\x70\x01"
    return data + field(7, field(5, tensor))  # a second graph field is merged into the first


def test_a_value_named_location_is_not_taken_for_external_data():
    model = onnx.load_from_string(linear_onnx(0))
    model.graph.doc_string = "the location of it\nlocation"
    model.graph.node[0].name = "location"
    model.metadata_props.add(key="a", value="location")
    assert Predictor(model.SerializeToString()).device == "cpu"
