"""Tests of many images in one request."""

import asyncio
import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from service.classify import read_npy
from service.problems import Problem
from tests.conftest import encode
from tests.service.cases import JPEG, PIXELS, PNG, Case, assert_refused, damaged, png_claiming
from tests.service.conftest import make_edge, running

NPY_TYPE = {"content-type": "application/x-npy"}
PICTURES = np.random.default_rng(3).integers(0, 256, (70, 32, 32, 3), np.uint8)


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def claiming(description: str) -> bytes:
    """Return an .npy file whose header is ``description``."""
    header = description.encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.fixture
def expected(tiny_store):
    stored = ModelStore(tiny_store).load("tiny_b")
    return Predictor(stored.onnx, PredictorOptions(device="cpu")).predict(PICTURES)


def check(response, expected):
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["model"] == "tiny_b"
    classes = [entry["class_id"] for entry in document["predictions"]]
    assert classes == expected.argmax(axis=1).tolist()
    confidences = [entry["confidence"] for entry in document["predictions"]]
    assert confidences == pytest.approx(expected.max(axis=1).tolist(), abs=1e-6)
    assert {len(entry["top_k"]) for entry in document["predictions"]} == {2}


def test_a_form_with_many_images(run, expected):
    parts = [("image", (f"{k}.png", encode(picture))) for k, picture in enumerate(PICTURES)]
    response = run(lambda client: client.post("/classify/batch?model=tiny_b&top_k=2", files=parts))
    check(response, expected)


def test_an_npy_array_of_images(run, expected):
    url = "/classify/batch?model=tiny_b&top_k=2"
    response = run(lambda client: client.post(url, content=npy(PICTURES), headers=NPY_TYPE))
    check(response, expected)


def test_each_bad_image_gets_its_own_error(run):
    bad = [(PNG[:40], "undecodable", 422), (b"a cat", "unsupported-type", 415)]
    bad += [(png_claiming(60_000, 60_000), "too-many-pixels", 422), (b"", "unsupported-type", 415)]
    bodies = [JPEG, *[body for body, _, _ in bad], PNG]
    parts = [("image", ("a", body)) for body in bodies]
    response = run(lambda client: client.post("/classify/batch", files=parts))
    assert response.status_code == 200
    first, *refusals, last = response.json()["predictions"]
    assert "label" in first
    assert "label" in last
    for (_, kind, status), refusal in zip(bad, refusals, strict=True):
        assert list(refusal) == ["error"]
        assert refusal["error"]["type"] == f"urn:problem-type:cifar10:{kind}"
        assert refusal["error"]["status"] == status


def test_a_batch_of_only_bad_images_is_answered(run):
    files = [("image", ("a", b"a cat"))]
    response = run(lambda client: client.post("/classify/batch", files=files))
    assert response.status_code == 200
    assert [list(entry) for entry in response.json()["predictions"]] == [["error"]]


def _of_type(content: bytes, content_type: str = NPY_TYPE["content-type"]) -> dict[str, object]:
    return {"content": content, "headers": {"content-type": content_type}}


_UINT8 = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}"
ONE = PICTURES[:1]

CASES = (
    Case("empty", 400, "malformed", _of_type(b"")),
    Case("raw image", 415, "unsupported-type", _of_type(PNG, "image/png")),
    Case("json", 415, "unsupported-type", {"json": [1]}),
    Case("another part", 400, "malformed", {"files": [("picture", ("a", PNG))]}),
    Case("one image too many", 413, "too-large", {"files": [("image", ("a", PNG))] * 9}),
    Case("many images too many", 413, "too-large", {"files": [("image", ("a", PNG))] * 99}),
    Case("npy with too many", 413, "too-large", _of_type(npy(PICTURES[:9]))),
    Case("npy without images", 400, "malformed", _of_type(npy(PICTURES[:0]))),
    Case("npy cut short", 400, "malformed", _of_type(npy(ONE)[:-1])),
    Case("npy with more", 400, "malformed", _of_type(npy(ONE) + b"\0")),
    Case("npy of floats", 400, "malformed", _of_type(npy(ONE.astype(np.float32)))),
    Case("npy of another shape", 400, "malformed", _of_type(npy(ONE[0]))),
    Case("npy in Fortran order", 400, "malformed", _of_type(npy(np.asfortranarray(PICTURES[:2])))),
    Case(
        "npy of objects",
        400,
        "malformed",
        _of_type(npy(np.array([{}], object), allow_pickle=True)),
    ),
    Case("pickle", 400, "malformed", _of_type(pickle.dumps(ONE))),
    Case("npy magic only", 400, "malformed", _of_type(b"\x93NUMPY")),
    Case("npy of version 9", 400, "malformed", _of_type(b"\x93NUMPY\x09\x00" + b"\0" * 200)),
    Case(
        "npy claiming a lot",
        413,
        "too-large",
        _of_type(claiming(_UINT8 % "(99999999999999999999, 32, 32, 3)")),
    ),
    Case("npy less than none", 400, "malformed", _of_type(claiming(_UINT8 % "(-1, 32, 32, 3)"))),
    Case(
        "npy of True",
        400,
        "malformed",
        _of_type(claiming(_UINT8 % "(True, 32, 32, 3)") + bytes(3072)),
    ),
    Case("npy of a call", 400, "malformed", _of_type(claiming("__import__('os').getpid()"))),
    Case("npy of brackets", 400, "malformed", _of_type(claiming("(" * 110))),
    Case("unknown model", 404, "no-such-model", _of_type(npy(ONE)), "?model=resnet"),
    Case("top_k=0", 400, "malformed", _of_type(npy(ONE)), "?top_k=0"),
    Case("GET", 405, "method-not-allowed", {}, method="GET"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refusals(tiny_store, case):
    async def main():
        async with running(make_edge(tiny_store, max_images=8)) as client:
            return await client.request(
                case.method, f"/classify/batch{case.query}", **case.arguments
            )

    response = asyncio.run(main())
    assert_refused(case, response)
    if case.status == 413:
        assert response.json()["max_images"] == 8


@settings(max_examples=300, deadline=None, derandomize=True)
@given(damaged(npy(ONE)) | st.binary(max_size=200).map(lambda data: b"\x93NUMPY\x01\x00" + data))
def test_damaged_arrays(body):
    try:
        images = read_npy(body, 8, [(32, 32, 3)])
    except Problem as problem:
        json.dumps(problem.document())
    else:
        assert images.shape[1:] == (32, 32, 3)
        assert images.dtype == np.uint8


def test_the_images_are_counted(run):
    async def ask(client):
        await client.post("/classify/batch", content=npy(PICTURES), headers=NPY_TYPE)
        await client.post("/classify", content=encode(PIXELS))
        return (await client.get("/metrics")).text

    text = run(ask)
    assert 'cifar10_images_classified_total{model="tiny_a"} 71.0' in text
    assert 'cifar10_batch_images_count{model="tiny_a"} 4.0' in text  # 32 + 32 + 6, and 1
    assert 'cifar10_requests_total{code="200",route="/classify/batch"} 1.0' in text
