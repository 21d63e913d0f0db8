"""Tests of a real server whose models differ in image size and labels, with real clients."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from cifar10.images import decode_image
from cifar10.store import ModelStore
from tests.service.mixed import NAMES, PHOTO, TILE, expected, mixed_store
from tests.service.server import Server
from tests.service.test_openapi import SCHEMA


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_store(tmp_path_factory.mktemp("sizes"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server")
    running = Server(home, store, CIFAR10_DEFAULT_MODEL="auto")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@pytest.mark.parametrize("name", NAMES)
def test_tritonclient_with_each_model(server, store, name):
    card = ModelStore(store).card(name)
    pixels = np.stack([decode_image(body, target=card.target) for body in (TILE, PHOTO)])
    image = triton.InferInput("image", pixels.shape, "UINT8")
    image.set_data_from_numpy(pixels)
    best = triton.InferRequestedOutput("probabilities", class_count=2)
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        metadata = client.get_model_metadata(name)
        found = client.infer(name, [image]).as_numpy("probabilities")
        classes = client.infer(name, [image], outputs=[best]).as_numpy("probabilities")
    assert metadata["inputs"][0]["shape"] == [-1, *card.image_shape]
    assert metadata["outputs"][0]["shape"] == [-1, len(card.labels)]
    assert found.shape == (2, len(card.labels))
    for body, row, entries in zip((TILE, PHOTO), found, classes, strict=True):
        label, confidence = expected(store, name, body)
        assert card.labels[int(row.argmax())] == label
        assert float(row.max()) == confidence
        assert entries[0].decode().split(":", 2)[2] == label


def test_every_answer_of_auto_matches_openapi_json(server):
    for address, arguments in (
        ("/classify", {"content": PHOTO}),
        ("/classify", {"content": TILE}),
        ("/classify/batch", {"files": [("image", PHOTO), ("image", TILE), ("image", b"a cat")]}),
    ):
        response = httpx.post(server.url + address, **arguments)
        assert response.status_code == 200, response.text
        response.request.read()
        SCHEMA[address]["POST"].validate_response(response)
    for address, template in (
        ("/models", "/models"),
        ("/models/auto", "/models/{name}"),
        ("/models/flowers", "/models/{name}"),
    ):
        response = httpx.get(server.url + address)
        assert response.status_code == 200, response.text
        SCHEMA[template]["GET"].validate_response(response)
