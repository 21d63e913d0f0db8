"""Tests that a request answered without a task gets the answer that it gets with one."""

import asyncio
import json
import re
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from cifar10.predictor import Predictor
from service.edge import Edge
from service.workers.board import Place
from service.workers.connection import Connection
from tests.conftest import encode
from tests.service.cases import CASES, JPEG, PHOTO, PIXELS, PNG, WEBP
from tests.service.conftest import make_edge, running
from tests.service.test_protocol import INFER, PICTURES, ask, binary, compressed
from tests.service.workers.client import Transport

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RANDOM = re.compile(rb"urn:uuid:[0-9a-f-]{36}|(?<=319c-)[0-9a-f]{16}")


def whole(method="POST", url="/classify", version=b"1.1", **arguments) -> bytes:
    """Return the bytes of a request as a client sends them."""
    request = httpx.Request(method, f"http://edge{url}", **arguments)
    lines = [f"{method} ".encode() + request.url.raw_path + b" HTTP/" + version]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.read()


class Caller:
    """A connection to an edge, with or without its ``begin``."""

    def __init__(self, edge: Edge, at_once: bool) -> None:
        self.edge = edge
        config = uvicorn.Config(edge, http=Connection, ws="none", log_config=None)
        config.load()
        Connection.place = Place.alone()
        Connection.count = staticmethod(edge.count_refusal)
        self.state = ServerState()
        self.connection = Connection(config, self.state, {})
        self.connection.begin = edge.begin if at_once else None
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    async def answer(self, *packets: bytes) -> tuple[bytes, bool]:
        """Return what is written in answer to a request, and whether a task was started for it."""
        before = len(self.transport.written)
        for packet in packets:
            self.connection.data_received(packet)
        took_task = bool(self.state.tasks)
        while self.connection.idle_since is None and not self.transport.closed:
            await asyncio.sleep(0.001)
        return RANDOM.sub(b"*", self.transport.written[before:]), took_task


@asynccontextmanager
async def both(store, **settings):
    """Yield two callers of the same edge: with ``begin``, and without."""
    edge = make_edge(store, **settings)
    async with running(edge) as client:
        yield Caller(edge, at_once=True), Caller(edge, at_once=False), client


def compare(store, *requests: bytes, **settings) -> list[tuple[bytes, bool]]:
    """Assert that all requests get the same answers either way, and return the first way's."""

    async def main():
        async with both(store, **settings) as (quick, slow, _):
            answers = []
            for request in requests:
                answers.append(await quick.answer(request))
                expected, took_task = await slow.answer(request)
                assert answers[-1][0] == expected
                assert took_task
                assert quick.transport.closed == slow.transport.closed
                if slow.transport.closed:
                    break
            return answers

    return asyncio.run(main())


TILES = {
    "jpeg": {"content": JPEG},
    "png": {"content": PNG},
    "webp": {"content": WEBP},
    "form": {"files": {"image": ("a.jpg", JPEG, "image/jpeg")}},
    "query": {"content": JPEG, "url": "/classify?model=tiny_b&top_k=7"},
    "larger": {"content": encode(PIXELS.repeat(2, 0)[:, :20], "JPEG")},
    "traced": {"content": JPEG, "headers": {"traceparent": TRACE}},
    "a token": {"content": JPEG, "headers": {"authorization": "Bearer secret"}},
}


@pytest.mark.parametrize(
    "settings", [{}, {"token": "secret", "access_log": 1.0}], ids=["", "token"]
)
def test_small_images_are_answered_alike_without_a_task(tiny_store, settings):
    answers = compare(tiny_store, *[whole(**tile) for tile in TILES.values()], **settings)
    assert [took_task for _, took_task in answers] == [False] * len(TILES)
    expected = [200] * len(TILES) if not settings else [401] * (len(TILES) - 1) + [200]
    assert [int(answer[9:12]) for answer, _ in answers] == expected


def element(image: bytes) -> bytes:
    return len(image).to_bytes(4, "little") + image


def tensors(content: bytes, datatype: str, shape: list[int]) -> dict:
    """Return the arguments of a request whose tensor follows the JSON."""
    entry = {"name": "image", "datatype": datatype, "shape": shape}
    entry |= {"parameters": {"binary_data_size": len(content)}}
    output = {"name": "probabilities", "parameters": {"binary_data": True}}
    header = json.dumps({"id": "7", "inputs": [entry], "outputs": [output]}).encode()
    length = {"inference-header-content-length": str(len(header))}
    return {"content": header + content, "headers": length}


INFERENCES = {
    "numbers": ask(PICTURES[:1]),
    "bytes": binary(),
    "bytes in and out": tensors(PICTURES.tobytes(), "UINT8", [3, 32, 32, 3]),
    "encoded": tensors(element(JPEG), "BYTES", [1]),
    "an unknown model": binary() | {"url": "/v2/models/none/infer"},
    "a wrong shape": tensors(PICTURES.tobytes(), "UINT8", [2, 32, 32, 3]),
    "not an image": tensors(element(b"a cat"), "BYTES", [1]),
    "no JSON": {"content": b"[1"},
}


@pytest.mark.parametrize("token", [None, "secret"])
def test_inference_requests_are_answered_alike_without_a_task(tiny_store, token):
    requests = [whole(**{"url": INFER} | arguments) for arguments in INFERENCES.values()]
    answers = compare(tiny_store, *requests, token=token)
    assert [took_task for _, took_task in answers] == [False] * len(answers)
    expected = [401] * len(answers) if token else [200] * 4 + [404, 400, 415, 400]
    assert [int(answer[9:12]) for answer, _ in answers] == expected


@pytest.mark.parametrize("count", [32, 33])
def test_more_images_than_one_run_takes_get_a_task(tiny_store, count):
    images = np.resize(PICTURES, (count, 32, 32, 3))
    ((answer, took_task),) = compare(tiny_store, whole(url=INFER, **binary(images)), max_batch=32)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert took_task == (count > 32)


def test_a_full_queue_is_refused_alike(tiny_store):
    """Five clients ask at once for three images each; the queue takes seven images."""
    request = whole(url=INFER, **binary())

    async def main():
        edge = make_edge(tiny_store, queue_bound=7)
        async with running(edge):
            answers = []
            for at_once in (True, False):
                callers = [Caller(edge, at_once) for _ in range(5)]
                asked = [caller.answer(request) for caller in callers]
                found = await asyncio.gather(*asked)
                again, _ = await callers[-1].answer(request)
                answers.append([answer for answer, _ in found] + [again])
            return answers

    quick, slow = asyncio.run(main())
    assert quick == slow
    assert [int(answer[9:12]) for answer in quick] == [200, 200, 503, 503, 503, 200]


def test_a_request_under_way_outlives_its_model(tiny_store):
    request = whole(url=INFER, **binary())

    async def main():
        async with both(tiny_store) as (quick, slow, _):
            expected, _ = await slow.answer(request)
            quick.connection.data_received(request)
            quick.edge.backend.models.unload("tiny_b")
            under_way = await quick.answer()
            return expected, under_way, await quick.answer(request), await slow.answer(request)

    expected, under_way, quick, slow = asyncio.run(main())
    assert under_way == (expected, False)
    assert quick[0] == slow[0]
    assert quick[0].startswith(b"HTTP/1.1 404 ")


ONE_OF_EACH = whole(content=JPEG), whole(url=INFER, **binary())


def test_refusals_are_alike(tiny_store):
    compare(
        tiny_store, *[whole(**case.send_arguments()) for case in CASES if "20 MB" not in case.name]
    )


def test_whatever_takes_longer_gets_a_task(tiny_store):
    requests = (
        whole(content=PHOTO * 9),
        whole(content=JPEG, url="/classify?explain=true"),
        whole(content=JPEG, headers={"content-encoding": "gzip"}),
        whole(content=JPEG, headers={"expect": "100-continue"}),
        whole(method="GET", url="/livez"),
        whole(url=INFER, **compressed(ask(), "gzip")),
        whole(url=INFER, **tensors(b"".join(map(element, [PNG, JPEG])), "BYTES", [2])),
        whole(content=PNG, url="/v2/repository/index"),
    )

    async def main():
        async with both(tiny_store) as (quick, *_):
            return [(await quick.answer(request))[1] for request in requests]

    assert asyncio.run(main()) == [True] * len(requests)


@pytest.mark.parametrize(
    "request_bytes",
    [whole(content=JPEG, version=b"1.0"), whole(content=JPEG, headers={"connection": "close"})],
    ids=["1.0", "close"],
)
def test_the_connection_ends_alike(tiny_store, request_bytes):
    ((answer, _),) = compare(tiny_store, request_bytes)
    assert b"\r\nconnection: close\r\n" in answer


def test_a_body_in_two_packets_and_pipelined_requests_are_answered(tiny_store):
    request = whole(content=JPEG)

    async def main():
        async with both(tiny_store) as (quick, *_):
            alone, _ = await quick.answer(request)
            split, _ = await quick.answer(request[:-9], request[-9:])
            quick.connection.data_received(request + request)
            quick.connection.data_received(request)
            written = len(quick.transport.written) + 3 * len(alone)
            while len(quick.transport.written) < written:
                await asyncio.sleep(0.001)
            return alone, split, quick.transport.written[-3 * len(alone) :]

    alone, split, three = asyncio.run(main())
    assert split == alone
    assert three == 3 * alone


def test_the_metrics_count_alike(tiny_store):
    async def main():
        async with both(tiny_store) as (*callers, client):
            texts = [(await client.get("/metrics")).text]
            for caller in callers:
                for content in (JPEG, PNG, b"a cat"):
                    await caller.answer(whole(content=content))
                for arguments in INFERENCES.values():
                    await caller.answer(whole(**{"url": INFER} | arguments))
                texts.append((await client.get("/metrics")).text)
            return texts

    def numbers(text: str) -> dict[str, float]:
        lines = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
        varying = re.compile(r"_bucket|seconds_(sum|total)|_created|timestamp|/metrics")
        return {name: float(value) for name, _, value in lines if not varying.search(name)}

    first, second, third = map(numbers, asyncio.run(main()))
    quick = {name: value - first.get(name, 0) for name, value in second.items()}
    slow = {name: value - second[name] for name, value in third.items()}
    assert quick == slow
    assert quick['cifar10_requests_total{code="200",route="/classify"}'] == 2
    assert quick['cifar10_queue_seconds_count{model="tiny_a"}'] == 2
    assert quick['cifar10_model_requests_total{model="tiny_b"}'] == 4
    assert third["cifar10_requests_in_flight"] == 1  # the question itself


@pytest.mark.parametrize("request_bytes", ONE_OF_EACH, ids=["classify", "infer"])
def test_a_model_that_fails_is_a_500_for_its_request_only(tiny_store, monkeypatch, request_bytes):
    predict, is_broken = Predictor.predict, False

    def maybe_fail(*arguments):
        if is_broken:
            message = "defect"
            raise RuntimeError(message)
        return predict(*arguments)

    monkeypatch.setattr(Predictor, "predict", maybe_fail)

    async def main():
        nonlocal is_broken
        async with both(tiny_store) as (quick, slow, _):
            is_broken = True
            failed = [await caller.answer(request_bytes) for caller in (quick, slow)]
            is_broken = False
            return failed, await quick.answer(request_bytes)

    (quick, slow), (after, _) = asyncio.run(main())
    assert quick[0] == slow[0]
    assert quick[0].startswith(b"HTTP/1.1 500 ")
    assert after.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("written_by", "request_bytes"),
    [
        ("service.classify.prediction", ONE_OF_EACH[0]),
        ("service.protocol.write_inference", ONE_OF_EACH[1]),
    ],
)
def test_an_answer_that_cannot_be_written_is_a_500(
    tiny_store, monkeypatch, written_by, request_bytes
):
    monkeypatch.setattr(written_by, lambda *_: 1 // 0)
    ((answer, _),) = compare(tiny_store, request_bytes)
    assert answer.startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("request_bytes", ONE_OF_EACH, ids=["classify", "infer"])
def test_a_missed_deadline_is_refused_alike(tiny_store, request_bytes):
    ((late, _),) = compare(tiny_store, request_bytes, deadline_seconds=1e-9)
    assert late.startswith(b"HTTP/1.1 504 ")


def test_a_client_that_leaves_gets_no_answer_and_the_next_one_does(tiny_store):
    async def main():
        async with both(tiny_store) as (gone, stays, client):
            stays.connection.begin = gone.connection.begin
            gone.connection.data_received(whole(content=JPEG))
            gone.connection.connection_lost(None)
            answer, _ = await stays.answer(whole(content=JPEG))
            return gone.transport.written, answer, (await client.get("/metrics")).text

    nothing, answer, text = asyncio.run(main())
    assert nothing == b""
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "cifar10_requests_in_flight 1.0" in text
