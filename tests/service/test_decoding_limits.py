"""Tests of the limits on decoding, in process: threads, memory, large and many images."""

import asyncio
import os
import sys
import threading
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from service import decoding as decoding_module
from service import inference as inference_module
from tests.conftest import encode
from tests.service.cases import PNG, WEBP, Case, assert_refused
from tests.service.conftest import make_edge, running

NOISE = np.random.default_rng(0).integers(0, 256, (1_000, 1_000, 3), np.uint8)
PHOTO = encode(NOISE, "JPEG")
PICTURE = encode(NOISE[:200, :200], "JPEG")


@pytest.fixture
def decoders(monkeypatch):
    """Record (thread, niceness) of each image's decoding, by its bytes. Photos wait for release."""
    decode, release = decoding_module.decode_layout, threading.Event()
    found: dict[bytes, tuple[str, int]] = {}

    def note_and_decode(layout, target):
        niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        thread = threading.current_thread().name.partition("_")[0]
        found[layout.data] = thread, niceness
        if thread == "photos":
            release.wait(30)
        return decode(layout, target)

    monkeypatch.setattr(decoding_module, "decode_layout", note_and_decode)
    found_and_release = SimpleNamespace(threads=found, release=release)
    yield found_and_release
    release.set()


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


def test_a_photo_does_not_delay_smaller_images_and_its_thread_has_low_priority(
    tiny_store, decoders
):
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


def test_many_pixels_or_images_do_not_delay_smaller_images(tiny_store, decoders):
    """A few kilobytes may contain millions of pixels, and a form hundreds of images."""
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


def test_a_server_with_a_stuck_decoder_is_not_ready(tiny_store, decoders):
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
    assert "the photos decoder has been busy with a request" in stuck.json()["detail"]
    assert (v2.status_code, live.status_code) == (503, 200)


def test_lack_of_memory_for_an_image_is_503(run, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding_module, "decode_layout", fail)

    async def ask(client):
        post = await client.post("/classify", content=PNG)
        return post, await client.post("/classify/batch", files=[("image", PNG)] * 2)

    post, form = run(ask)
    assert_refused(Case("", 503, "queue-full"), post)
    assert "memory" in post.json()["detail"]
    assert_refused(Case("", 503, "queue-full"), form)


def test_a_form_has_one_deadline_for_all_threads(tiny_store, monkeypatch):
    """Time spent waiting for a thread counts, and decoding stops once the form is answered."""
    decoded = []
    release = threading.Event()

    def note(layout, _):
        decoded.append(layout.data)
        release.wait(30)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(decoding_module, "decode_layout", note)
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


def test_a_long_form_takes_turns_with_the_forms_of_other_clients(tiny_store, monkeypatch):
    monkeypatch.setattr(inference_module, "FORM_TURN_SECONDS", 0.0)
    monkeypatch.setattr(inference_module, "client_of", str)
    order = []

    release = threading.Event()

    def note(layout, _):
        order.append(layout.data)
        release.wait(30)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(decoding_module, "decode_layout", note)

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
