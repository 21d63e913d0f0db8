"""Tests of the second engine: OpenVINO behind the predictor, with ONNX Runtime's contract."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cifar10 import environment, openvino_session
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import (
    GoldenMismatchError,
    InvalidGraphError,
    ProviderUnavailableError,
    SettingsError,
)
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from tests.conftest import linear_onnx, needs_openvino

OPENVINO = PredictorOptions("cpu", engine="openvino")
IMAGES = np.random.default_rng(3).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


@needs_openvino
def test_it_answers_as_onnx_runtime_in_batches_of_any_size():
    ours, theirs = Predictor(linear_onnx(0)), Predictor(linear_onnx(0), OPENVINO)
    assert (theirs.provider, theirs.providers, theirs.device) == ("OpenVINO", ("OpenVINO",), "cpu")
    assert (theirs.image_shape, theirs.class_count) == (ours.image_shape, ours.class_count)
    for count in (1, 7, 40, 2):
        found = theirs.predict(IMAGES[:count])
        assert (found.dtype, found.shape) == (np.float32, (count, 10))
        np.testing.assert_allclose(found, ours.predict(IMAGES[:count]), atol=1e-6)


@needs_openvino
def test_an_answer_is_a_copy_and_the_images_may_be_any_array():
    predictor = Predictor(linear_onnx(0), OPENVINO)
    reversed_view = IMAGES[::-1]
    frozen = IMAGES.copy()
    frozen.flags.writeable = False
    first = predictor.predict(IMAGES)
    np.testing.assert_array_equal(predictor.predict(reversed_view), first[::-1])
    np.testing.assert_array_equal(predictor.predict(frozen), first)
    with pytest.raises(ValueError, match=r"uint8 images of shape \(N, 32, 32, 3\)"):
        predictor.predict(IMAGES.astype(np.float32))


@needs_openvino
def test_any_thread_may_call_it():
    predictor = Predictor(linear_onnx(0), OPENVINO)
    expected = predictor.predict(IMAGES)
    parts = [slice(start, start + 1 + start % 5) for start in range(35)] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda part: predictor.predict(IMAGES[part]), parts))
    for part, answer in zip(parts, found, strict=True):
        np.testing.assert_allclose(answer, expected[part], atol=1e-6)


@needs_openvino
@pytest.mark.parametrize("threads", [1, 2])
def test_its_threads_are_those_of_the_options(threads):
    """By default OpenVINO takes all cores, pins its threads, and computes in bfloat16 where the
    processor can."""
    session = openvino_session.OpenVinoSession(linear_onnx(0), threads)
    model = session._request.get_compiled_model()
    assert model.get_property("INFERENCE_NUM_THREADS") == threads
    assert model.get_property("NUM_STREAMS") == 1
    assert not model.get_property("ENABLE_CPU_PINNING")
    assert model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


@needs_openvino
def test_other_answers_than_the_card_s_are_refused(tiny_store):
    stored = ModelStore(tiny_store).load("tiny_a")
    Predictor(stored.onnx, OPENVINO).check_card(stored.card)
    with pytest.raises(GoldenMismatchError, match=r"away from the card's .* on OpenVINO"):
        Predictor(linear_onnx(9), OPENVINO).check_card(stored.card)


@needs_openvino
def test_a_model_that_exits_early_keeps_each_image_s_answer():
    """A graph whose ``If`` runs only for the images that need it, as ``export.early_exit`` makes
    them."""
    data = _exits_early()
    ours, theirs = Predictor(data), Predictor(data, OPENVINO)
    dark, bright = np.zeros_like(IMAGES[:1]), np.full_like(IMAGES[:1], 255)
    for images in (dark, bright, np.concatenate([dark, bright, dark]), IMAGES):
        np.testing.assert_allclose(theirs.predict(images), ours.predict(images), atol=1e-6)
    assert np.ptp(theirs.predict(dark)) != np.ptp(theirs.predict(bright))


def _exits_early() -> bytes:
    """Return a model that sharpens its answers for dark images only, in a branch."""
    model = onnx.load_from_string(linear_onnx(0))
    graph = model.graph
    graph.output[0].name = graph.node[-1].output[0] = "first"

    def constant(name: str, value: object, kind: type) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    node = helper.make_node
    axes = constant("of_an_image", [1, 2, 3], np.int64)
    zero = constant("zero", [0], np.int64)
    graph.node.extend(
        [
            node("Cast", ["image"], ["brightness"], to=TensorProto.FLOAT),
            node("ReduceMean", ["brightness", axes], ["means"], keepdims=0),
            node("Less", ["means", constant("limit", 100.0, np.float32)], ["dark"]),
            node("NonZero", ["dark"], ["places"]),
            node("Transpose", ["places"], ["rows"], perm=[1, 0]),
            node("Size", ["rows"], ["count"]),
            node("Greater", ["count", zero], ["any_row"]),
            node("Squeeze", ["any_row"], ["any"]),
        ]
    )
    value = helper.make_tensor_value_info
    branches = {
        "then_branch": [
            node("GatherND", ["first", "rows"], ["chosen"]),
            node("Mul", ["chosen", constant("more", 9.0, np.float32)], ["sharper"]),
            node("Softmax", ["sharper"], ["again"], axis=1),
            node("ScatterND", ["first", "rows", "again"], ["then"]),
        ],
        "else_branch": [node("Identity", ["first"], ["else"])],
    }
    graph.node.append(
        node(
            "If",
            ["any"],
            ["probabilities"],
            **{
                name: helper.make_graph(
                    nodes, name, [], [value(nodes[-1].output[0], TensorProto.FLOAT, ["n", 10])]
                )
                for name, nodes in branches.items()
            },
        )
    )
    graph.output[0].name = "probabilities"
    onnx.checker.check_model(model)
    return model.SerializeToString()


@needs_openvino
def test_what_it_cannot_load_is_refused_in_one_line():
    with pytest.raises(InvalidGraphError, match=r"^OpenVINO cannot load the model: [^\n]+$"):
        Predictor(b"not a model", OPENVINO)


@needs_openvino
def test_a_graph_that_violates_the_contract_is_refused():
    with pytest.raises(InvalidGraphError, match="the contract is"):
        Predictor(linear_onnx(0, (4, 4, 3)), OPENVINO)


@needs_openvino
def test_its_reports_to_intel_are_never_loaded():
    """``import openvino`` alone would load its converter, which reports the import."""
    code = (
        "import sys\n"
        "from cifar10.predictor import Predictor, PredictorOptions\n"
        "from tests.conftest import linear_onnx\n"
        "Predictor(linear_onnx(0), PredictorOptions('cpu', engine='openvino'))\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [name for name in sys.modules if 'telemetry' in name and 'openvino' in name]\n"
        "assert 'openvino.tools.ovc' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(openvino_session.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ProviderUnavailableError, match=r"extra `openvino`.*unset CIFAR10_ENGINE"):
        Predictor(linear_onnx(0), OPENVINO)


def test_it_does_not_run_on_cuda():
    with pytest.raises(ProviderUnavailableError, match="'openvino' runs on the CPU"):
        Predictor(linear_onnx(0), PredictorOptions("cuda", engine="openvino"))


def test_the_engine_of_the_environment(monkeypatch):
    assert environment.engine() == "onnxruntime"
    monkeypatch.setenv("CIFAR10_ENGINE", "openvino")
    assert environment.engine() == "openvino"
    monkeypatch.setenv("CIFAR10_ENGINE", "tvm")
    with pytest.raises(SettingsError, match="'tvm' is not an engine; expected onnxruntime or"):
        environment.engine()
