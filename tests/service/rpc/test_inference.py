"""Tests of inference over gRPC: every form of a request, and every refusal."""

import contextlib
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.labels import LABELS
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from service.problems import Kind, Problem
from service.rpc.messages import message_class
from service.rpc.methods import STATUSES
from service.rpc.structure import check_structure
from service.rpc.tensors import parse_request, read_inference
from tests.service.cases import JPEG, PNG, damaged
from tests.service.rpc.conftest import (
    PICTURES,
    Client,
    Infer,
    Input,
    Output,
    Parameter,
    infer,
)
from tests.service.test_triton_extensions import LARGE, expected

Code = grpc.StatusCode
CLASSES = {"classification": Parameter(int64_param=2)}


def in_contents(images: np.ndarray = PICTURES) -> Any:
    tensor = Input(name="image", datatype="UINT8", shape=images.shape)
    tensor.contents.uint_contents.extend(images.ravel().tolist())
    return Infer(model_name="tiny_b", model_version="1", id="seven", inputs=[tensor])


def encoded(*images: bytes, shape: tuple[int, ...] | None = None, raw: bool = False) -> Any:
    tensor = Input(name="image", datatype="BYTES", shape=shape or (len(images),))
    if not raw:
        tensor.contents.bytes_contents.extend(images)
        return Infer(model_name="tiny_b", inputs=[tensor])
    content = b"".join(len(image).to_bytes(4, "little") + image for image in images)
    return Infer(model_name="tiny_b", inputs=[tensor], raw_input_contents=[content])


REQUESTS = {"raw": infer(), "contents": in_contents()}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_pixels(call, tiny_store, request_):
    answer = call(lambda client: client("ModelInfer", request_))
    assert (answer.model_name, answer.model_version) == ("tiny_b", "1")
    assert answer.id == request_.id
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("probabilities", "FP32", [3, 10])
    found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(3, 10)
    stored = ModelStore(tiny_store).load("tiny_b")
    model = Predictor(stored.onnx, PredictorOptions(device="cpu"))
    np.testing.assert_allclose(found, model.predict(PICTURES), atol=1e-6)


@pytest.mark.parametrize("raw", [False, True])
def test_encoded_images(call, tiny_store, raw):
    images = [PNG, LARGE, JPEG]
    answer = call(lambda client: client("ModelInfer", encoded(*images, raw=raw)))
    found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(-1, 10)
    np.testing.assert_allclose(found, expected(tiny_store, images), atol=1e-6)


def test_classes(call):
    request = infer(outputs=[Output(name="probabilities", parameters=CLASSES)])
    answer = call(lambda client: client("ModelInfer", request))
    (output,) = answer.outputs
    assert (output.datatype, list(output.shape)) == ("BYTES", [3, 2])
    first = answer.raw_output_contents[0]
    length = int.from_bytes(first[:4], "little")
    _, index, label = first[4 : 4 + length].decode().split(":")
    assert label == LABELS[int(index)]


def _input(**fields: Any) -> Any:
    return infer(
        inputs=[Input(**{"name": "image", "datatype": "UINT8", "shape": [3, 32, 32, 3]} | fields)]
    )


def _output(**fields: Any) -> Any:
    return infer(outputs=[Output(**fields)])


SHARED = {"shared_memory_region": Parameter(string_param="a")}
BAD: dict[str, tuple[grpc.StatusCode, Any, str]] = {
    "unknown model": (Code.NOT_FOUND, infer(model="none"), "tiny_a, tiny_b"),
    "unknown version": (Code.NOT_FOUND, infer(model_version="2"), "only version 1"),
    "no message": (Code.INVALID_ARGUMENT, b"\xff\xff", "not a ModelInferRequest"),
    "no input": (Code.INVALID_ARGUMENT, infer(inputs=[]), "exactly one input"),
    "another input": (Code.INVALID_ARGUMENT, _input(name="x"), "'image'"),
    "float pixels": (Code.INVALID_ARGUMENT, _input(datatype="FP32"), "scaling is part"),
    "another shape": (Code.INVALID_ARGUMENT, _input(shape=[3, 3, 32, 32]), "[N, 32, 32, 3]"),
    "a negative shape": (Code.INVALID_ARGUMENT, _input(shape=[-1, 32, 32, 3]), "at least 1"),
    "less data": (Code.INVALID_ARGUMENT, _input(shape=[4, 32, 32, 3]), "values"),
    "data twice": (
        Code.INVALID_ARGUMENT,
        _input(contents={"uint_contents": [1]}),
        "raw_input_contents",
    ),
    "data of another kind": (
        Code.INVALID_ARGUMENT,
        infer(
            raw_input_contents=[],
            inputs=[
                Input(
                    name="image",
                    datatype="UINT8",
                    shape=[1, 32, 32, 3],
                    contents={"fp32_contents": [1.0]},
                )
            ],
        ),
        "uint_contents",
    ),
    "values too large": (
        Code.INVALID_ARGUMENT,
        infer(
            raw_input_contents=[],
            inputs=[
                Input(
                    name="image",
                    datatype="UINT8",
                    shape=[1, 32, 32, 3],
                    contents={"uint_contents": [256] * 3072},
                )
            ],
        ),
        "0 to 255",
    ),
    "shared input": (Code.INVALID_ARGUMENT, _input(parameters=SHARED), "shared memory"),
    "shared output": (
        Code.INVALID_ARGUMENT,
        _output(name="probabilities", parameters=SHARED),
        "shared memory",
    ),
    "another output": (Code.INVALID_ARGUMENT, _output(name="logits"), "'probabilities'"),
    "classes of text": (
        Code.INVALID_ARGUMENT,
        _output(name="probabilities", parameters={"classification": Parameter(string_param="2")}),
        "classification",
    ),
    "id too long": (Code.INVALID_ARGUMENT, infer(id="x" * 1_025), "1,024"),
    "too many images": (
        Code.RESOURCE_EXHAUSTED,
        infer(np.zeros((9, 32, 32, 3), np.uint8)),
        "8 images",
    ),
    "no image": (Code.INVALID_ARGUMENT, encoded(b"a cat"), "JPEG"),
    "a damaged image": (Code.INVALID_ARGUMENT, encoded(PNG, PNG[:60]), "image 1 of 2"),
    "fewer images": (Code.INVALID_ARGUMENT, encoded(PNG, shape=(2,)), "2 images"),
    "many fields": (Code.INVALID_ARGUMENT, b"\x2a\x00" * 20_000, "more fields"),
    "a shared memory RPC": (Code.UNIMPLEMENTED, None, "shared memory"),
    "an unknown RPC": (Code.UNIMPLEMENTED, None, ""),
}
OTHER_METHODS = {
    "a shared memory RPC": "SystemSharedMemoryRegister",
    "an unknown RPC": "TraceSetting",
}


def test_bad_requests(call):
    async def ask(client: Client) -> dict[str, tuple[grpc.StatusCode, str]]:
        found = {}
        for name, (_, request, _) in BAD.items():
            method = OTHER_METHODS.get(name, "ModelInfer")
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(
                    request
                    if isinstance(request, bytes)
                    else (request or infer()).SerializeToString()
                )
            found[name] = error.value.code(), error.value.details()
        await client("ModelInfer", infer())  # the server still answers
        return found

    found = call(ask, max_images=8)
    for name, (status, _, reason) in BAD.items():
        assert found[name][0] is status, (name, found[name])
        assert reason in found[name][1], (name, found[name])


def test_every_kind_of_problem_has_a_status():
    assert set(STATUSES) == set(Kind)


WHOLE = [
    infer().SerializeToString(),
    in_contents().SerializeToString(),
    encoded(PNG).SerializeToString(),
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(WHOLE).flatmap(damaged) | st.binary(max_size=200), st.booleans())
def test_damaged_messages(tiny_store, message, is_small):
    card = ModelStore(tiny_store).card("tiny_b")
    with contextlib.suppress(Problem):
        read_inference(parse_request(message, 8, is_small=is_small), card, 8)


@pytest.mark.parametrize("message", WHOLE)
def test_whole_messages_have_few_fields(message):
    check_structure(message, 8)


@pytest.mark.parametrize(
    "message",
    [b"\x08", b"\x0b\x0c", b"\x0a\x05a", b"\x80" * 11, b"\x09abc", b"\x2a\x02\x18"],
)
def test_bytes_that_are_no_fields(message):
    with pytest.raises(Problem, match="not a ModelInferRequest"):
        check_structure(message, 8)


def test_streams_answer_in_order_and_survive_refusals(call):
    requests = [infer(id="1"), infer(model="none"), in_contents()]

    async def ask(client: Client) -> list[bytes]:
        stream = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        return [answer async for answer in stream(one.SerializeToString() for one in requests)]

    parse = message_class("ModelStreamInferResponse").FromString
    first, second, third = map(parse, call(ask))
    assert first.infer_response.id == "1"
    assert not first.error_message
    assert "no model 'none'" in second.error_message
    assert third.infer_response.id == "seven"
