"""Tests of a request's limits, in process: deadline, queue places and what a refusal leaves."""

import asyncio
import gc
import gzip
import threading
from concurrent.futures import Future

import numpy as np
import pytest

from cifar10.image_layout import ImageLayout
from cifar10.predictor import Predictor
from service import batcher as batcher_module
from service.problems import Problem
from tests.conftest import encode
from tests.service.cases import PNG, Case, assert_refused
from tests.service.conftest import make_edge, running

NOISE = np.random.default_rng(0).integers(0, 256, (1_000, 1_000, 3), np.uint8)
PHOTO = encode(NOISE, "JPEG")


@pytest.fixture
def stuck(monkeypatch):
    """Yield an event for which every run of a model waits."""
    release = threading.Event()
    predict = Predictor.predict

    def wait_and_predict(self, images):
        if threading.current_thread().name.startswith("predict"):
            release.wait(30)
        return predict(self, images)

    monkeypatch.setattr(Predictor, "predict", wait_and_predict)
    monkeypatch.setattr(batcher_module, "INLINE_SECONDS", 0)  # every model is too slow for the loop
    yield release
    release.set()


def test_past_the_deadline_is_504(tiny_store, stuck):
    async def main():
        async with running(make_edge(tiny_store, deadline_seconds=0.2)) as client:
            late = await client.post("/classify", content=PNG)
            stuck.set()
            return late, await client.post("/classify", content=PNG)

    late, next_one = asyncio.run(main())
    assert_refused(Case("", 504, "deadline"), late)
    assert next_one.status_code == 200


def test_a_full_queue_is_503_with_retry_after(tiny_store, stuck):
    async def main():
        async with running(make_edge(tiny_store, queue_bound=2)) as client:
            posts = [asyncio.create_task(client.post("/classify", content=PNG)) for _ in range(5)]
            refused, _ = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            while len([post for post in posts if post.done()]) < 3:
                await asyncio.sleep(0.01)
            live = await client.get("/livez")
            stuck.set()
            return refused, await asyncio.gather(*posts), live

    refused, responses, live = asyncio.run(main())
    assert sorted(response.status_code for response in responses) == [200, 200, 503, 503, 503]
    assert live.status_code == 200
    busy = refused.pop().result()
    assert_refused(Case("", 503, "queue-full"), busy)
    assert int(busy.headers["retry-after"]) >= 1


REFUSED = {
    "cut short": ("/classify", {"content": PHOTO[: len(PHOTO) // 2]}),
    "no image": ("/classify", {"content": b"a cat" * 10_000}),
    "form": ("/classify", {"files": {"picture": PHOTO}}),
    "bad parts": ("/classify/batch", {"files": [("image", PHOTO[:-5_000])] * 3}),
    "gzip": (
        "/v2/models/tiny_a/infer",
        {"content": gzip.compress(b"[" * 20_000), "headers": {"content-encoding": "gzip"}},
    ),
}


@pytest.mark.parametrize(("url", "arguments"), REFUSED.values(), ids=REFUSED)
def test_a_refused_request_leaves_nothing_for_the_garbage_collector(run, url, arguments):
    """An exception refers to the frames it passed, and they refer to the request's body."""

    async def ask(client):
        await client.post(url, **arguments)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await client.post(url, **arguments)
            gc.collect()
            return [one for one in gc.garbage if isinstance(one, Problem | ImageLayout | Future)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert run(ask) == []
