"""What a request may take: bytes, time, places in a queue, a thread. In process."""

import asyncio
import gc
import gzip
import os
import sys
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from cifar10.image_layout import ImageLayout
from cifar10.predictor import Predictor
from service import batcher as batcher_module
from service import inference as inference_module
from service.exchange import Request
from service.problems import Kind, Problem
from service.upload import BodyReader
from tests.conftest import encode
from tests.service.cases import PNG, WEBP, Case, assert_refused
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


@pytest.fixture
def decoders(monkeypatch):
    """Where each image was decoded, by its bytes: (thread, niceness); a photo waits for release."""
    decode, release = inference_module.decode_layout, threading.Event()
    found: dict[bytes, tuple[str, int]] = {}

    def note_and_decode(layout):
        niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        thread = threading.current_thread().name.partition("_")[0]
        found[layout.data] = thread, niceness
        if thread == "photos":
            release.wait(30)
        return decode(layout)

    monkeypatch.setattr(inference_module, "decode_layout", note_and_decode)
    found_and_release = SimpleNamespace(threads=found, release=release)
    yield found_and_release
    release.set()


NOISE = np.random.default_rng(0).integers(0, 256, (1_000, 1_000, 3), np.uint8)
PHOTO = encode(NOISE, "JPEG")
PICTURE = encode(NOISE[:200, :200], "JPEG")


def test_too_many_large_photos_are_503(tiny_store, monkeypatch, decoders):
    monkeypatch.setattr(inference_module, "MAX_PREPARING", 2)

    async def main():
        async with running(make_edge(tiny_store)) as client:
            posts = []
            for _ in range(3):  # one after the other: they pass another thread before
                posts.append(asyncio.create_task(client.post("/classify", content=PHOTO)))
                await asyncio.sleep(0)
                while len(posts) == 1 and not decoders.threads:
                    await asyncio.sleep(0.001)
            done, _ = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            decoders.release.set()
            await asyncio.gather(*posts)
            return done.pop().result(), [post.result().status_code for post in posts]

    busy, statuses = asyncio.run(main())
    assert_refused(Case("", 503, "queue-full"), busy)
    assert sorted(statuses) == [200, 200, 503]


def test_a_photo_holds_up_no_smaller_image_and_its_thread_gives_way(tiny_store, decoders):
    async def main():
        async with running(make_edge(tiny_store)) as client:
            large = asyncio.create_task(client.post("/classify", content=PHOTO))
            while PHOTO not in decoders.threads:
                await asyncio.sleep(0)
            small = await client.post("/classify", content=PICTURE)
            still_there = not large.done()
            decoders.release.set()
            return small.status_code, still_there, (await large).status_code

    assert asyncio.run(main()) == (200, True, 200)
    assert [decoders.threads[one][0] for one in (PHOTO, PICTURE)] == ["photos", "prepare"]
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert decoders.threads[PICTURE][1] == own
        assert decoders.threads[PHOTO][1] == min(own + inference_module.NICENESS, 19)


def test_many_pixels_and_many_images_hold_up_no_smaller_image(tiny_store, decoders):
    """A few kilobytes may be millions of pixels, and a form may hold hundreds of images."""
    decoders.release.set()
    flat = encode(np.zeros((1_200, 1_200, 3), np.uint8), "PNG")
    part = encode(NOISE[:200, :200], "PNG")
    assert len(flat) < inference_module.INLINE_BYTES

    async def main():
        async with running(make_edge(tiny_store)) as client:
            posts = [
                await client.post("/classify", content=flat),
                await client.post("/classify", files={"image": PICTURE}),
                await client.post("/classify/batch", files=[("image", part)]),
            ]
            return [post.status_code for post in posts]

    assert asyncio.run(main()) == [200, 200, 200]
    threads = {one: thread for one, (thread, _) in decoders.threads.items()}
    assert threads == {flat: "photos", PICTURE: "prepare", part: "forms"}
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert decoders.threads[part][1] == min(own + inference_module.NICENESS, 19)


def test_a_decoder_that_is_stuck_is_not_ready(tiny_store, decoders):
    async def main():
        async with running(make_edge(tiny_store, deadline_seconds=0.05)) as client:
            late = await client.post("/classify", content=PHOTO)
            while (stuck := await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
            v2 = await client.get("/v2/health/ready")
            live = await client.get("/livez")
            decoders.release.set()
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            return late, stuck, v2, live

    late, stuck, v2, live = asyncio.run(main())
    assert late.status_code == 504
    assert_refused(Case("", 503, "not-ready"), stuck)
    assert "the decoder of photos has been at one request" in stuck.json()["detail"]
    assert (v2.status_code, live.status_code) == (503, 200)


def test_no_memory_for_an_image_is_503(run, monkeypatch):
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(inference_module, "decode_layout", fail)

    async def ask(client):
        post = await client.post("/classify", content=PNG)
        return post, await client.post("/classify/batch", files=[("image", PNG)] * 2)

    post, form = run(ask)
    assert_refused(Case("", 503, "queue-full"), post)
    assert "memory" in post.json()["detail"]
    assert_refused(Case("", 503, "queue-full"), form)


def test_a_form_has_one_deadline_and_not_one_in_each_thread(tiny_store, monkeypatch):
    """What it waits for its thread is a part of its time; and a form whose client has its answer
    decodes no further."""
    decoded = []
    release = threading.Event()

    def note(layout):
        decoded.append(layout.data)
        release.wait(30)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(inference_module, "decode_layout", note)
    monkeypatch.setattr(inference_module, "FORM_TURN_SECONDS", 0.0)

    async def main():
        edge = make_edge(tiny_store, deadline_seconds=0.2)
        async with running(edge) as client:
            late = await client.post("/classify/batch", files=[("image", PNG)] * 50)
            release.set()
            while edge._inference._open_forms or edge._inference._forms.busy_seconds():
                await asyncio.sleep(0)
            return late.status_code

    assert asyncio.run(main()) == 504
    assert len(decoded) <= 1


def test_forms_of_others_take_turns_with_a_long_one(tiny_store, monkeypatch):
    monkeypatch.setattr(inference_module, "FORM_TURN_SECONDS", 0.0)
    monkeypatch.setattr(inference_module, "client_of", str)
    order = []

    release = threading.Event()

    def note(layout):
        order.append(layout.data)
        release.wait(30)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(inference_module, "decode_layout", note)

    async def main():
        edge = make_edge(tiny_store)
        async with running(edge) as client:
            other = httpx.AsyncClient(
                transport=httpx.ASGITransport(edge, client=("192.0.2.7", 1)), base_url="http://edge"
            )
            long = asyncio.create_task(client.post("/classify/batch", files=[("image", PNG)] * 200))
            while not order:
                await asyncio.sleep(0)
            short = asyncio.create_task(other.post("/classify/batch", files=[("image", WEBP)]))
            while edge._inference._open_forms < 2:
                await asyncio.sleep(0)
            release.set()
            return (await short).status_code, (await long).status_code

    assert asyncio.run(main()) == (200, 200)
    assert order.index(WEBP) <= 3
    assert len(order) == 201


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
    """An exception knows the frames that it has passed, and they the request's body."""

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
