"""Tests of reloading: a new file replaces the old one without a failed request, or not at all."""

import asyncio
import concurrent.futures
import dataclasses
import hashlib
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from cifar10.records import to_json
from cifar10.store import ModelStore
from service.workers.board import EVERY_MODEL, RELOADS, Board, Place, model_key
from tests.conftest import add_model, linear_onnx
from tests.service.cases import PNG
from tests.service.conftest import make_edge, running
from tests.service.server import (
    Server,
    supervisor_of,
    wait_for,
)
from tests.service.stores import spoil_digest, spoil_golden

ADMINISTRATOR = {"authorization": "Bearer administrator"}
ADDRESS = "/models/tiny_b/reload"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for seed, name in enumerate(("tiny_a", "tiny_b")):
        add_model(root, name, linear_onnx(seed))
    return root


def put_new(store: Path, seed: int = 7) -> str:
    """Replace ``tiny_b`` by another model and return its digest."""
    shutil.rmtree(store / "tiny_b")
    return add_model(store, "tiny_b", linear_onnx(seed)).sha256


def spoil_graph(store: Path) -> None:
    """Replace ``tiny_b`` by a file that matches its card but is not a model."""
    card = ModelStore(store).card("tiny_b")
    junk = b"not ONNX"
    (store / "tiny_b" / "model.onnx").write_bytes(junk)
    digest = hashlib.sha256(junk).hexdigest()
    new = dataclasses.replace(card, sha256=digest, size_bytes=len(junk))
    (store / "tiny_b" / "card.json").write_text(to_json(new))


def remove(store: Path) -> None:
    shutil.rmtree(store / "tiny_b")


def classify(client):
    return client.post("/classify?model=tiny_b", content=PNG)


def test_the_new_model_answers_and_the_old_one_finishes_its_requests(store):
    async def main():
        async with running(make_edge(store, admin_token="administrator")) as client:
            before = await classify(client)
            digest = put_new(store)
            reload, *meanwhile = await asyncio.gather(
                client.post(ADDRESS, headers=ADMINISTRATOR), *(classify(client) for _ in range(50))
            )
            return before, digest, reload, meanwhile, await classify(client)

    before, digest, reload, meanwhile, after = asyncio.run(main())
    assert reload.status_code == 200, reload.text
    previous = before.json()["digest"]
    assert reload.json() == {
        "model": "tiny_b",
        "digest": digest,
        "previous": previous,
        "workers": 1,
    }
    assert Counter(one.status_code for one in meanwhile) == {200: 50}
    assert {one.json()["digest"] for one in meanwhile} <= {previous, digest}
    assert after.json()["digest"] == digest
    assert after.json()["confidence"] != before.json()["confidence"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_golden, "golden"),
        (spoil_digest, "SHA-256"),
        (spoil_graph, ""),
        (remove, "tiny_b"),
    ],
)
def test_after_a_bad_file_the_old_model_keeps_serving(store, spoil, reason):
    async def main():
        async with running(make_edge(store, admin_token="administrator")) as client:
            before = await classify(client)
            spoil(store)
            reload = await client.post(ADDRESS, headers=ADMINISTRATOR)
            return before, reload, await classify(client), await client.get("/readyz")

    before, reload, after, ready = asyncio.run(main())
    assert reload.status_code == 409, reload.text
    assert reload.headers["content-type"] == "application/problem+json"
    assert reason in reload.json()["detail"]
    assert before.json()["digest"] in reload.json()["detail"]
    assert after.json() == before.json()
    assert ready.status_code == 200


@pytest.mark.parametrize(
    ("token", "sent", "address", "status"),
    [
        (None, ADMINISTRATOR, ADDRESS, 403),
        ("administrator", {}, ADDRESS, 401),
        ("administrator", {"authorization": "Bearer public"}, ADDRESS, 401),
        ("administrator", ADMINISTRATOR, "/models/none/reload", 404),
        ("administrator", ADMINISTRATOR, ADDRESS + "?force=1", 400),
    ],
)
def test_authorisation_of_reloads(tiny_store, token, sent, address, status):
    async def main():
        settings = {"admin_token": token} if token else {}
        async with running(make_edge(tiny_store, token="public", **settings)) as client:
            return await client.post(address, headers=sent)

    assert asyncio.run(main()).status_code == status


def make_unreadable(store: Path) -> None:
    """Replace ``tiny_a``'s card by bytes that are not text."""
    (store / "tiny_a" / "card.json").write_bytes(b"\xff\xfe")


def make_fifo(store: Path) -> None:
    """Replace ``tiny_a``'s card by a FIFO, which would block a reader."""
    card = store / "tiny_a" / "card.json"
    card.unlink()
    os.mkfifo(card)


def make_deep(store: Path) -> None:
    """Replace ``tiny_a``'s card by deeply nested lists."""
    (store / "tiny_a" / "card.json").write_text(100_000 * "[")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
@pytest.mark.parametrize("spoil", [make_unreadable, make_fifo, make_deep])
def test_a_bad_card_does_not_affect_the_reload_of_another_model(server: Server, store, spoil):
    spoil(store)
    digest = put_new(store)
    reload = httpx.post(f"{server.url}{ADDRESS}", headers=ADMINISTRATOR, timeout=90)
    assert reload.status_code == 200, reload.text
    assert reload.json() == {**reload.json(), "digest": digest, "workers": 2}
    assert {digest_from(server) for _ in range(20)} == {digest}
    refused = httpx.post(f"{server.url}/models/tiny_a/reload", headers=ADMINISTRATOR, timeout=90)
    assert refused.status_code == 409
    assert "tiny_a" in refused.json()["detail"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
def test_a_reload_changes_only_the_named_model(server: Server, store: Path):
    before = digest_from(server)
    put_new(store)
    reload = httpx.post(f"{server.url}/models/tiny_a/reload", headers=ADMINISTRATOR, timeout=90)
    assert (reload.status_code, reload.json()["workers"]) == (200, 2)
    assert {digest_from(server) for _ in range(20)} == {before}


def test_the_board_records_the_model_of_each_reload():
    board = Board(2)
    here, there = (Place(board, board.take_row(process)) for process in (1, 2))
    first, second = board.next_reload(model_key("a")), board.next_reload(EVERY_MODEL)
    assert [board.reload_key(number) for number in (first, second)] == [model_key("a"), 0]
    assert here.missed_reload
    here.report_reload(first, done=False)
    here.report_reload(second, done=True)
    assert not here.missed_reload
    outcomes = [board.reload_outcome(place.row, first) for place in (here, there)]
    assert outcomes == [False, None]
    assert board.reload_outcome(here.row, second) is True
    for _ in range(RELOADS):
        last = board.next_reload(model_key("b"))
    assert board.reload_outcome(here.row, last) is None
    board.free_row(here.row)
    assert board.reload_outcome(here.row, second) is None


@pytest.fixture
def server(tmp_path: Path, store: Path):
    running_server = Server(
        tmp_path, store, CIFAR10_WORKERS="2", CIFAR10_ADMIN_TOKEN="administrator"
    )
    try:
        running_server.wait_until_ready()
        yield running_server
    finally:
        running_server.kill()


def digest_from(server: Server) -> str:
    """Return the digest that one worker reports. Every call opens a new connection."""
    answer = httpx.post(f"{server.url}/classify?model=tiny_b", content=PNG, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["digest"])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
def test_every_worker_loads_the_new_file_and_no_request_fails(server: Server, store: Path):
    digest = put_new(store)
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        meanwhile = [callers.submit(digest_from, server) for _ in range(100)]
        reload = httpx.post(f"{server.url}{ADDRESS}", headers=ADMINISTRATOR, timeout=90)
        seen = {one.result() for one in meanwhile}
    assert reload.status_code == 200, reload.text
    assert reload.json()["workers"] == 2
    assert seen <= {reload.json()["previous"], digest}
    assert {digest_from(server) for _ in range(20)} == {digest}

    # Also by a signal to the process that BentoML started.
    digest = put_new(store, 8)
    os.kill(supervisor_of(server).pid, signal.SIGHUP)
    wait_for(lambda: {digest_from(server) for _ in range(20)} == {digest}, "both have the new file")

    # A bad file changes nothing in any worker.
    spoil_golden(store)
    os.kill(supervisor_of(server).pid, signal.SIGHUP)
    wait_for(lambda: server.log.read_text().count("is not reloaded") == 2, "both have refused it")
    assert {digest_from(server) for _ in range(20)} == {digest}
    assert httpx.get(f"{server.url}/readyz").status_code == 200
