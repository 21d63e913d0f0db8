"""Tests of one server whose models differ in image size, labels and fit."""

import asyncio
import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar10.images import decode_image
from cifar10.predictor import PredictorOptions
from cifar10.store import ModelStore
from service.choice import choose
from service.models import load_model
from service.settings import Settings
from tests.conftest import add_model, encode, linear_onnx
from tests.service.conftest import make_edge, running
from tests.service.mixed import BANNER, NAMES, PHOTO, TILE, expected, mixed_store
from tests.service.test_batch import NPY_TYPE, npy


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_store(tmp_path_factory.mktemp("sizes"))


def ask(store, behaviour, **settings):
    async def main():
        async with running(make_edge(store, **{"default_model": None, **settings})) as client:
            return await behaviour(client)

    return asyncio.run(main())


def said(entry: dict) -> tuple[str, float]:
    return entry["label"], entry["confidence"]


@pytest.mark.parametrize("name", NAMES)
def test_each_model_gets_its_own_size_and_gives_its_own_labels(store, name):
    async def behaviour(client):
        url = f"/classify?model={name}&explain=true&top_k=3"
        return [(await client.post(url, content=body)).json() for body in (TILE, PHOTO, BANNER)]

    card = ModelStore(store).card(name)
    for body, answer in zip((TILE, PHOTO, BANNER), ask(store, behaviour), strict=True):
        assert said(answer) == expected(store, name, body)
        assert answer["model"] == name
        assert {entry["label"] for entry in answer["top_k"]} <= set(card.labels)
        png = base64.b64decode(answer["explanation"]["tile_png"])
        shown = np.asarray(Image.open(io.BytesIO(png)))
        assert np.array_equal(shown, decode_image(body, target=card.target))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_each_model(store, name):
    card = ModelStore(store).card(name)
    bodies = [TILE, PHOTO, b"no image", BANNER] * 3
    arrays = np.stack([decode_image(body, target=card.target) for body in (TILE, PHOTO)])

    async def behaviour(client):
        url = f"/classify/batch?model={name}"
        parts = [("image", body) for body in bodies]
        form = await client.post(url, files=parts)
        array = await client.post(url, content=npy(arrays), headers=NPY_TYPE)
        return form.json(), array.json()

    form, array = ask(store, behaviour)
    for body, entry in zip(bodies, form["predictions"], strict=True):
        if body == b"no image":
            assert entry["error"]["status"] == 415
        else:
            assert said(entry) == expected(store, name, body)
    assert form["model"] == array["model"] == name
    assert form["digest"] == array["digest"] == card.sha256
    for body, entry in zip((TILE, PHOTO), array["predictions"], strict=True):
        assert said(entry) == expected(store, name, body)


def test_an_array_of_another_size_is_refused_with_the_size_expected(store):
    async def behaviour(client):
        url, array = "/classify/batch?model=", npy(np.zeros((2, 32, 32, 3), np.uint8))
        wrong = [
            await client.post(url + name, content=array, headers=NPY_TYPE)
            for name in ("flowers", "auto")
        ]
        return [*wrong, await client.post(url + "flowers&top_k=4", content=array)]

    flowers, both, top_k = ask(store, behaviour)
    assert flowers.status_code == top_k.status_code == 400
    assert "expected uint8 (N, 64, 64, 3)" in flowers.json()["detail"]
    assert both.status_code == 200
    assert "from 1 to 3" in top_k.json()["detail"]


def test_auto_asks_the_model_of_photographs_about_large_images_only(store):
    bodies = [TILE, PHOTO, BANNER, encode(np.zeros((64, 64, 3), np.uint8)), b"no image"]
    names = ["compact_int8", "photo", "compact_int8", "photo", None]

    async def behaviour(client):
        single = [(await client.post("/classify", content=body)).json() for body in bodies[:-1]]
        parts = [("image", body) for body in bodies]
        batch = await client.post("/classify/batch", files=parts)
        array = np.zeros((2, 224, 224, 3), np.uint8)
        url = "/classify/batch?model=auto"
        arrays = await client.post(url, content=npy(array), headers=NPY_TYPE)
        return single, batch.json(), arrays.json()

    single, batch, arrays = ask(store, behaviour)
    assert [answer["model"] for answer in single] == names[:-1]
    assert [entry.get("model") for entry in batch["predictions"]] == names
    for body, name, answer, entry in zip(bodies, names, single, batch["predictions"], strict=False):
        assert said(answer) == said(entry) == expected(store, name, body)
    assert batch["model"] == "auto"
    assert [one["model"] for one in batch["models"]] == ["compact_int8", "photo"]
    assert [one["digest"] for one in batch["models"]] == [
        ModelStore(store).card(name).sha256 for name in ("compact_int8", "photo")
    ]
    assert [entry["model"] for entry in arrays["predictions"]] == ["photo"] * 2


def test_auto_is_listed_and_can_be_overridden(store):
    async def behaviour(client):
        listed = (await client.get("/models")).json()
        auto = (await client.get("/models/auto")).json()
        named = await client.post("/classify?model=compact_int8", content=PHOTO)
        unknown = (await client.post("/classify?model=nobody", content=PHOTO)).json()
        tensors = await client.get("/v2/models/auto")
        return listed, auto, named.json()["model"], unknown, tensors

    listed, auto, named, unknown, tensors = ask(store, behaviour)
    assert listed["default"] == "auto"
    assert listed["auto"] == {"small": "compact_int8", "large": "photo", "large_side": 64}
    assert [model["name"] for model in listed["models"]] == list(NAMES)
    assert [model["input"] for model in listed["models"]] == [[n, n, 3] for n in (32, 64, 224)]
    assert [model["classes"] for model in listed["models"]] == [10, 3, 11]
    assert [model["name"] for model in auto["models"]] == ["compact_int8", "photo"]
    assert named == "compact_int8"
    assert unknown["models"] == sorted((*NAMES, "auto"))
    assert tensors.status_code == 404
    assert "compact_int8 or photo" in tensors.json()["error"]


@pytest.mark.parametrize(
    ("settings", "default", "has_auto"),
    [
        ({"default_model": "photo"}, "photo", True),
        ({"default_model": "auto"}, "auto", True),
        ({"load": ("compact_int8", "flowers")}, "compact_int8", False),
        ({"load": ("photo",)}, "photo", False),
        ({"aliases": {"auto": "flowers"}}, "compact_int8", False),
        ({"aliases": {"best": "auto"}, "default_model": "best"}, "auto", True),
    ],
)
def test_auto_is_the_default_only_where_both_models_are_loaded(store, settings, default, has_auto):
    chosen = choose(Settings(device="cpu", **settings), ModelStore(store))
    assert chosen.default == default
    assert (chosen.auto is not None) == has_auto


def test_a_reloaded_member_answers_as_auto(store, tmp_path):
    """``auto`` refers to its members by name, so it sees their new files."""
    shutil.copytree(store, tmp_path / "store")
    edge = make_edge(tmp_path / "store", default_model=None, admin_token="secret")
    add_model(tmp_path / "store", "compact_int8", linear_onnx(9))

    async def main():
        async with running(edge) as client:
            card = add_model(tmp_path / "store", "compact_int8", linear_onnx(10))
            headers = {"authorization": "Bearer secret"}
            await client.post("/models/compact_int8/reload", headers=headers)
            return card.sha256, (await client.post("/classify", content=TILE)).json()["digest"]

    new, found = asyncio.run(main())
    assert found == new


def test_only_models_that_are_not_part_of_the_default_are_unloaded(store):
    async def behaviour(client):
        headers = {"authorization": "Bearer secret"}
        answers = [
            await client.post(f"/v2/repository/models/{name}/unload", headers=headers)
            for name in NAMES
        ]
        classified = [await client.post("/classify", content=body) for body in (TILE, PHOTO)]
        return {one: answer.status_code for one, answer in zip(NAMES, answers, strict=True)}, [
            answer.status_code for answer in classified
        ]

    unloaded, classified = ask(store, behaviour, admin_token="secret")
    assert unloaded == {"compact_int8": 409, "flowers": 200, "photo": 409}
    assert classified == [200, 200]


def test_runs_of_large_images_are_smaller(store):
    options = PredictorOptions(device="cpu")
    loaded = {name: load_model(ModelStore(store), name, options, 32) for name in NAMES}
    assert {name: model.max_batch for name, model in loaded.items()} == {
        "compact_int8": 32,
        "flowers": 32,
        "photo": 8,
    }
