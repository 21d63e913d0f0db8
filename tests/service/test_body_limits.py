"""Tests of the limits on a body, in process: its size, its time and the memory of all bodies."""

import asyncio

import pytest

from service.exchange import Request
from service.problems import Kind, Problem
from service.upload import BodyReader
from tests.service.cases import PNG, Case, assert_refused
from tests.service.conftest import make_edge, running


async def never():
    """Yield a body that never arrives."""
    await asyncio.Event().wait()
    yield b""


def test_the_size_of_a_streamed_body_is_limited(tiny_store):
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


def test_a_too_large_content_length_is_refused_before_reading(edge):
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


def test_a_client_that_disconnects_within_its_body_gets_no_answer(edge):
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


def test_total_memory_of_arriving_bodies_is_limited_except_for_small_ones():
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
        """Read a small body, which must work whatever other bodies hold."""
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
