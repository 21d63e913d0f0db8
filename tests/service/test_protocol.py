"""Tests of the Open Inference Protocol v2."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.labels import LABELS
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from service.descriptions import EXTENSIONS
from service.problems import Problem
from service.tensors import read_inference
from tests.service.cases import damaged
from tests.service.conftest import make_edge, running

INFER = "/v2/models/tiny_b/infer"
PICTURES = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), np.uint8)


def tensor(images: np.ndarray, **changes: Any) -> dict[str, Any]:
    plain = {"name": "image", "datatype": "UINT8", "shape": list(images.shape)}
    return plain | {"data": images.ravel().tolist()} | changes


def ask(images: np.ndarray = PICTURES, **changes: Any) -> dict[str, Any]:
    return {"json": {"inputs": [tensor(images)]} | changes}


def binary(images: np.ndarray = PICTURES, **changes: Any) -> dict[str, Any]:
    size = {"binary_data_size": images.nbytes}
    entry = {k: v for k, v in tensor(images, parameters=size).items() if k != "data"}
    header = json.dumps({"inputs": [entry]} | changes).encode()
    return {
        "content": header + images.tobytes(),
        "headers": {"inference-header-content-length": str(len(header))},
    }


def compressed(arguments: dict[str, Any], encoding: str) -> dict[str, Any]:
    content = arguments.get("content") or json.dumps(arguments["json"]).encode()
    content = gzip.compress(content) if encoding == "gzip" else zlib.compress(content)
    return {
        "content": content,
        "headers": {"content-encoding": encoding, **arguments.get("headers", {})},
    }


def ask_as_floats() -> dict[str, Any]:
    entry = tensor(PICTURES)
    numbers = {key: [float(value) for value in entry[key]] for key in ("shape", "data")}
    return {"json": {"inputs": [entry | numbers]}}


@pytest.fixture
def expected(tiny_store):
    stored = ModelStore(tiny_store).load("tiny_b")
    return Predictor(stored.onnx, PredictorOptions(device="cpu")).predict(PICTURES)


REQUESTS = {
    "flat": ask(),
    "nested": {"json": {"inputs": [tensor(PICTURES, data=PICTURES.tolist())]}},
    "binary": binary(),
    "gzip": compressed(ask(), "gzip"),
    "deflate": compressed(ask(), "deflate"),
    "gzip of binary": compressed(binary(), "gzip"),
    "x-gzip": compressed(ask(), "gzip") | {"headers": {"content-encoding": "x-gzip"}},
    "numbers with a decimal point": ask_as_floats(),
}


@pytest.mark.parametrize("arguments", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_inference(run, expected, arguments, version):
    url = f"/v2/models/tiny_b{version}/infer"
    response = run(lambda client: client.post(url, **arguments))
    assert response.status_code == 200, response.text
    document = response.json()
    assert (document["model_name"], document["model_version"]) == ("tiny_b", "1")
    assert "id" not in document
    (output,) = document["outputs"]
    assert (output["name"], output["datatype"]) == ("probabilities", "FP32")
    assert output["shape"] == [3, 10]
    np.testing.assert_allclose(np.reshape(output["data"], (3, 10)), expected, atol=1e-6)


def test_binary_outputs(run, expected):
    arguments = ask(parameters={"binary_data_output": True}, id="seven")
    response = run(lambda client: client.post(INFER, **arguments))
    length = int(response.headers["inference-header-content-length"])
    document = json.loads(response.content[:length])
    assert document["id"] == "seven"
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 120}
    found = np.frombuffer(response.content[length:], "<f4").reshape(3, 10)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_classification(run, expected):
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    response = run(lambda client: client.post(INFER, **ask(outputs=outputs)))
    (output,) = response.json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [3, 2])
    best = expected[0].argmax()
    value, index, label = output["data"][0].split(":")
    assert (int(index), label) == (best, LABELS[best])
    assert float(value) == pytest.approx(expected[0][best], abs=1e-5)


def test_metadata_and_health(run):
    async def get(client):
        paths = ("", "/health/live", "/health/ready", "/models/tiny_a/versions/1")
        paths += ("/models/tiny_a/ready", "/models/tiny_a/versions/1/ready")
        return [await client.get(f"/v2{path}") for path in paths]

    server, *healthy, _, _ = responses = run(get)
    assert {response.status_code for response in responses} == {200}
    assert server.json()["extensions"] == list(EXTENSIONS)
    assert healthy[-1].json() == {
        "name": "tiny_a",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
    }


def _input(**changes: Any) -> dict[str, Any]:
    return {"json": {"inputs": [tensor(PICTURES[:1], **changes)]}}


def _output(**output: Any) -> dict[str, Any]:
    return ask(PICTURES[:1], outputs=[output])


def _with(arguments: dict[str, Any], **headers: str) -> dict[str, Any]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return arguments | {"headers": arguments.get("headers", {}) | fields}


ONE = PICTURES[:1].ravel().tolist()
LENGTH = "inference_header_content_length"
BAD: dict[str, tuple[int, dict[str, Any]]] = {
    "no JSON": (400, {"content": b"an image"}),
    "deep JSON": (400, {"content": b"[" * 100_000}),
    "a list": (400, {"json": []}),
    "no inputs": (400, {"json": {}}),
    "inputs are no list": (400, {"json": {"inputs": 1}}),
    "two inputs": (400, {"json": {"inputs": [tensor(PICTURES)] * 2}}),
    "another input": (400, _input(name="pixels")),
    "another datatype": (400, _input(datatype="FP32")),
    "no datatype": (400, _input(datatype=None)),
    "encoded images in JSON": (400, _input(datatype="BYTES", shape=[1], data=["iVBORw0KGgo"])),
    "input in shared memory": (400, _input(parameters={"shared_memory_region": "a"})),
    "output in shared memory": (
        400,
        _output(name="probabilities", parameters={"shared_memory_region": "a"}),
    ),
    "data with a fraction": (400, _input(data=[0.5, *map(float, ONE[1:])])),
    "infinite data": (400, {"content": b'{"inputs": [{"data": [Infinity]}]}'}),
    "shape of text": (400, _input(shape="1")),
    "shape of booleans": (400, _input(shape=[True, 32, 32, 3])),
    "another shape": (400, _input(shape=[1, 3, 32, 32])),
    "no images": (400, _input(shape=[0, 32, 32, 3], data=[])),
    "less data": (400, _input(data=ONE[:-1])),
    "no data": (400, _input(data=None)),
    "data of text": (400, _input(data="A" * 3072)),
    "data of texts": (400, _input(data=["A" * 100_000, *ONE[1:]])),
    "data of objects": (400, _input(data=[{}] * 3072)),
    "data too large": (400, _input(data=[256, *ONE[1:]])),
    "negative data": (400, _input(data=[-1, *ONE[1:]])),
    "huge data": (400, _input(data=[2**63, *ONE[1:]])),
    "data with fractions": (400, _input(data=[0.5, *ONE[1:]])),
    "ragged data": (400, _input(data=[[ONE[:96]], ONE[96:]])),
    "id of a number": (400, ask(id=1)),
    "id too long": (400, ask(id="x" * 1_025)),
    "many lists": (400, {"content": b"[" + b"[]," * 10_000 + b"[]]"}),
    "many lists of lists": (400, {"content": b"[" + b"[[]]," * 8_000 + b"[]]"}),
    "many objects": (400, ask(parameters={"a": [{}] * 65})),
    "many texts": (400, ask(parameters={"a": ["b"] * 513})),
    "many values": (400, ask(parameters={"a": [0] * 40_000})),
    "much JSON": (413, ask(id="x" * 1_400_000)),
    "much JSON, compressed": (413, compressed(ask(id="x" * 1_400_000), "gzip")),
    "parameters of text": (400, ask(parameters="x")),
    "another output": (400, _output(name="logits")),
    "classes of text": (400, _output(name="probabilities", parameters={"classification": "2"})),
    "binary of text": (400, _output(name="probabilities", parameters={"binary_data": "yes"})),
    "length of text": (400, _with(binary(), **{LENGTH: "ten"})),
    "length beyond the body": (400, _with(binary(), **{LENGTH: "99999"})),
    "length of 0": (400, _with(binary(), **{LENGTH: "0"})),
    "no length": (400, {"content": binary()["content"]}),
    "binary with less": (400, binary() | {"content": binary()["content"][:-1]}),
    "binary with more": (400, binary() | {"content": binary()["content"] + b"\0"}),
    "more after JSON": (400, {"content": json.dumps(ask()["json"]).encode() + b"\0"}),
    "gzip that is none": (400, _with(ask(), content_encoding="gzip")),
    "deflate that is none": (400, _with(ask(), content_encoding="deflate")),
    "another encoding": (415, _with(ask(), content_encoding="br")),
    "a bomb": (413, compressed({"content": b"\0" * 20_000_000}, "gzip")),
    "too many images": (413, binary(np.zeros((9, 32, 32, 3), np.uint8))),
}


def assert_refused(response: httpx.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert len(response.json()["error"]) > 20


@pytest.mark.parametrize(("status", "arguments"), BAD.values(), ids=BAD)
def test_bad_requests(tiny_store, status, arguments):
    async def main():
        async with running(make_edge(tiny_store, max_images=8)) as client:
            return await client.post(INFER, **arguments)

    assert_refused(asyncio.run(main()), status)


def test_truncated_gzip_and_gzip_with_trailing_data_are_refused(run):
    whole = compressed(ask(), "gzip")

    async def post(client):
        content = whole["content"]
        return [
            await client.post(INFER, content=body, headers=whole["headers"])
            for body in (content[:-9], content + b"x")
        ]

    for response in run(post):
        assert_refused(response, 400)


def test_unknown_models_versions_and_addresses(run):
    async def get(client):
        paths = ("/models/none", "/models/none/ready", "/models/tiny_a/versions/2", "/nothing")
        missing = [await client.get(f"/v2{path}") for path in paths]
        missing.append(await client.post("/v2/models/none/infer", **ask()))
        return missing, await client.get(INFER), await client.get("/v2x")

    missing, method, elsewhere = run(get)
    for response in missing:
        assert_refused(response, 404)
    assert "tiny_a, tiny_b" in missing[0].json()["error"]
    assert_refused(method, 405)
    assert method.headers["allow"] == "POST"
    assert elsewhere.json()["type"].endswith("not-found")


BINARY = binary()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(damaged(BINARY["content"]), st.none() | st.integers(0, 400).map(lambda n: b"%d" % n))
def test_damaged_bodies(tiny_store, body, length):
    length = length or BINARY["headers"]["inference-header-content-length"].encode()
    try:
        images = read_inference(
            body, length, ModelStore(tiny_store).card("tiny_b"), 8, 100_000
        ).images
    except Problem:
        return
    assert isinstance(images, tuple) or images.shape[1:] == (32, 32, 3)
