"""What a request may take: bytes, time, places in a queue, a thread. In process."""

import asyncio
import os
import sys
import threading

import numpy as np
import pytest

from cifar10.predictor import Predictor
from service import batcher as batcher_module
from service import inference as inference_module
from service.exchange import Request
from service.problems import Kind, Problem
from service.upload import BodyReader
from tests.conftest import encode
from tests.service.cases import PIXELS, PNG, Case, assert_refused
from tests.service.conftest import make_edge, running


async def never():
    """A body that does not arrive."""
    await asyncio.Event().wait()
    yield b""


def test_a_body_without_a_length_is_capped_while_it_streams(tiny_store):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield b"\0" * 1000

    async def main():
        async with running(make_edge(tiny_store, max_body_bytes=5000)) as client:
            return await client.post("/classify", content=endless())

    response = asyncio.run(main())
    assert response.status_code == 413
    assert response.json()["max_bytes"] == 5000
    assert sent <= 7


def _scope(**headers: str) -> dict[str, object]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "query_string": b"",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }


def test_a_length_too_large_is_refused_before_anything_is_read(edge):
    async def receive():
        pytest.fail("the body was read")

    answers = []

    async def main():
        async def send(message):
            answers.append(message)

        async with running(edge):
            await edge(_scope(content_length="99999999"), receive, send)

    asyncio.run(main())
    assert answers[0]["status"] == 413


def test_a_client_that_leaves_in_mid_body_gets_nothing(edge):
    messages = [
        {"type": "http.request", "body": PNG[:100], "more_body": True},
        {"type": "http.disconnect"},
    ]
    answers = []

    async def main():
        async def receive():
            return messages.pop(0)

        async def send(message):
            answers.append(message)

        async with running(edge) as client:
            await edge(_scope(), receive, send)
            return (await client.get("/metrics")).text

    metrics = asyncio.run(main())
    assert answers == []
    assert 'cifar10_requests_total{code="499",route="/classify"} 1.0' in metrics
    assert "cifar10_requests_in_flight 1.0" in metrics  # the question itself


def test_a_body_that_does_not_arrive_is_408(tiny_store):
    async def main():
        async with running(make_edge(tiny_store, deadline_seconds=0.05)) as client:
            return await client.post("/classify", content=never())

    response = asyncio.run(main())
    assert_refused(Case("", 408, "body-timeout"), response)


def test_every_late_body_is_408_and_no_other(tiny_store):
    async def main():
        async with running(make_edge(tiny_store, deadline_seconds=0.2)) as client:
            first = asyncio.create_task(client.post("/classify", content=never()))
            await asyncio.sleep(0.1)
            second = asyncio.create_task(client.post("/classify", content=never()))
            good = await client.post("/classify", content=PNG)
            late = await asyncio.gather(first, second)
            return good, [*late, await client.post("/classify", content=never())]

    good, late = asyncio.run(main())
    assert good.status_code == 200
    for response in late:
        assert_refused(Case("", 408, "body-timeout"), response)


def test_bodies_that_arrive_together_have_a_bound_and_small_ones_none():
    reader = BodyReader(max_bytes=1_000, seconds=30, max_arriving_bytes=1_500)

    async def main():
        finish = asyncio.Event()

        def request(*parts):
            left = list(parts)

            async def receive():
                if len(left) == 1:
                    await finish.wait()
                return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

            return Request("POST", "/classify", b"", {}, receive, 0.0)

        def begin():
            return asyncio.create_task(reader.read(request(b"a" * 800, b"b")))

        first, second = begin(), begin()
        await asyncio.wait([second])
        finish.set()
        whole = await reader.read(request(b"c" * 900))  # in one piece
        return second.exception(), whole, await first, await begin()

    async def beside():
        """A small body is read, whatever others hold."""
        reader._arriving_bytes = 10_000
        parts = [b"d" * 50, b"e"]

        async def receive():
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        small = await reader.read(Request("POST", "/classify", b"", {}, receive, 0.0))
        reader._arriving_bytes -= 10_000
        return small

    refused, whole, first, again = asyncio.run(main())
    assert asyncio.run(beside()) == b"d" * 50 + b"e"
    assert isinstance(refused, Problem)
    assert refused.kind is Kind.QUEUE_FULL
    assert whole == b"c" * 900
    assert first == again == b"a" * 800 + b"b"
    assert reader._arriving_bytes == 0


@pytest.fixture
def stuck(monkeypatch):
    """Every model run waits for the event that this gives."""
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


def test_too_many_large_photos_are_503(tiny_store, monkeypatch):
    release = threading.Event()
    decode = inference_module.decode_image

    def wait_and_decode(*arguments):
        release.wait(30)
        return decode(*arguments)

    monkeypatch.setattr(inference_module, "MAX_PREPARING", 2)
    monkeypatch.setattr(inference_module, "decode_image", wait_and_decode)
    photo = encode(np.tile(PIXELS, (40, 40, 1)), "JPEG")

    async def main():
        async with running(make_edge(tiny_store)) as client:
            posts = [asyncio.create_task(client.post("/classify", content=photo)) for _ in range(3)]
            done, _ = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            release.set()
            await asyncio.gather(*posts)
            return done.pop().result(), [post.result().status_code for post in posts]

    busy, statuses = asyncio.run(main())
    assert_refused(Case("", 503, "queue-full"), busy)
    assert sorted(statuses) == [200, 200, 503]


def test_a_photo_holds_up_no_smaller_image_and_its_thread_gives_way(tiny_store, monkeypatch):
    decode, release = inference_module.decode_image, threading.Event()
    threads: dict[int, tuple[str, int]] = {}

    def note_and_decode(image, limits):
        here = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, here)
        threads[len(image)] = threading.current_thread().name.partition("_")[0], niceness
        if len(image) >= inference_module.PHOTO_BYTES:
            release.wait(30)
        return decode(image, limits)

    monkeypatch.setattr(inference_module, "decode_image", note_and_decode)
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    photo, picture = encode(noise, "JPEG"), encode(noise[:200, :200], "JPEG")
    assert inference_module.INLINE.max_bytes < len(picture) < inference_module.PHOTO_BYTES

    async def main():
        async with running(make_edge(tiny_store)) as client:
            large = asyncio.create_task(client.post("/classify", content=photo))
            while len(photo) not in threads:
                await asyncio.sleep(0)
            small = await client.post("/classify", content=picture)
            still_there = not large.done()
            release.set()
            return small.status_code, still_there, (await large).status_code

    assert asyncio.run(main()) == (200, True, 200)
    assert (threads[len(photo)][0], threads[len(picture)][0]) == ("photos", "prepare")
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert threads[len(picture)][1] == own
        assert threads[len(photo)][1] == min(own + inference_module.PHOTO_NICENESS, 19)


def test_many_pixels_and_many_images_hold_up_no_smaller_image(tiny_store, monkeypatch):
    """A few kilobytes may be millions of pixels, and a form may hold hundreds of images."""
    decode = inference_module.decode_image
    threads: dict[int, str] = {}

    def note_and_decode(image, limits):
        tile = decode(image, limits)  # first: what is refused inline goes on to a thread
        threads[len(image)] = threading.current_thread().name.partition("_")[0]
        return tile

    monkeypatch.setattr(inference_module, "decode_image", note_and_decode)
    flat = encode(np.zeros((1_200, 1_200, 3), np.uint8), "PNG")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    picture, part = encode(noise, "JPEG"), encode(noise, "PNG")
    assert len(flat) < inference_module.INLINE.max_bytes

    async def main():
        async with running(make_edge(tiny_store)) as client:
            posts = [
                await client.post("/classify", content=flat),
                await client.post("/classify", files={"image": picture}),
                await client.post("/classify/batch", files=[("image", part)]),
            ]
            return [post.status_code for post in posts]

    assert asyncio.run(main()) == [200, 200, 200]
    expected = {len(flat): "photos", len(picture): "prepare", len(part): "forms"}
    assert threads == expected


def test_bad_lengths_are_malformed(edge):
    async def main(length):
        answers = []

        async def send(message):
            answers.append(message)

        async def receive():
            return {"type": "http.request", "body": PNG, "more_body": False}

        async with running(edge):
            await edge(_scope(content_length=length), receive, send)
        return answers[0]["status"]

    assert asyncio.run(main("-1")) == 400
