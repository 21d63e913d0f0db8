"""Tests of tokens, rate limit, CORS, tracing and access log."""

import asyncio
import gzip
import json
import logging
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cifar10.errors import ModelNotFoundError, SettingsError
from cifar10.store import ModelStore
from service.choice import choose
from service.problems import Problem
from service.rate_limit import RateLimit
from service.settings import Settings, read_settings
from service.telemetry.logs import JsonFormatter
from service.telemetry.tracing import Parent, Spans
from service.workers.board import Board
from service.workers.preflight import check_before_start
from tests.service.cases import PNG
from tests.service.conftest import Behaviour, make_edge, running
from tests.service.server import (
    START_SECONDS,
    Server,
)

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(store: Path, behaviour: Behaviour, change: Any = None, **settings: Any) -> Any:
    async def main() -> Any:
        edge = make_edge(store, **settings)
        if change is not None:
            change(edge)
        async with running(edge) as client:
            return await behaviour(client)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Basic secret"}, 401),
        ({"authorization": "Bearer secretsecret"}, 401),
        ({"authorization": "Bearer sécrét".encode()}, 401),
        ({"authorization": "Bearer secret"}, 200),
        ({"authorization": "bearer secret"}, 200),
        ({"authorization": "Bearer administrator"}, 200),
    ],
)
def test_a_token_is_required_if_one_is_set(tiny_store, sent, status):
    response = ask(
        tiny_store,
        lambda client: client.post("/classify", content=PNG, headers=sent),
        token="secret",
        admin_token="administrator",
    )
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.json()["type"].endswith("unauthorized")
        assert "secret" not in response.text


def test_every_address_except_health_checks_and_pages_requires_the_token(tiny_store):
    async def all_of_them(client: httpx.AsyncClient) -> dict[str, int]:
        paths = (await client.get("/openapi.json", headers={"authorization": "Bearer t"})).json()
        found = {}
        for template, operations in paths["paths"].items():
            path = template.replace("{name}", "tiny_a").replace("{version}", "1")
            for method in operations:
                found[template] = (await client.request(method, path)).status_code
        for path in ("/healthz", "/docs.json", "/schema.json", "/nowhere"):
            found[path] = (await client.get(path)).status_code
        return found

    found = ask(tiny_store, all_of_them, token="t")
    opened = {path for path, status in found.items() if status not in (401, 403)}
    health = {"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"}
    pages = {"/", "/docs", "/openapi.json"} | {path for path in found if "/static/" in path}
    assert opened == health | pages
    assert found["/models/{name}/reload"] == 403


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (["text/html"], 200),
        (["application/json"], 401),
        (["text/html", "application/json"], 401),  # the last of two headers counts
    ],
)
@pytest.mark.parametrize("path", ["/models", "/models/tiny_a"])
def test_only_the_page_of_the_models_needs_no_token(tiny_store, path, accept, status):
    headers = [("accept", value) for value in accept]
    response = ask(tiny_store, lambda client: client.get(path, headers=headers), token="t")
    assert response.status_code == status
    assert "tiny_a" not in response.text


def test_settings_never_show_a_token(monkeypatch):
    monkeypatch.setenv("CIFAR10_TOKEN", "hunter2")
    assert "hunter2" not in repr(read_settings())
    monkeypatch.setenv("CIFAR10_TOKEN", "")
    with pytest.raises(SettingsError, match="CIFAR10_TOKEN is not accepted"):
        read_settings()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def accepted(limit: RateLimit, address: str, requests: int) -> int:
    refusals: list[Problem] = []
    for _ in range(requests):
        try:
            limit.check(address)
        except Problem as problem:
            refusals.append(problem)
    assert all(one.kind.status == 429 for one in refusals)
    assert all(int(dict(one.headers)[b"retry-after"]) >= 1 for one in refusals)
    return requests - len(refusals)


def test_an_address_gets_exactly_its_rate():
    clock = Clock()
    limit = RateLimit(5, Board(1), b"key", clock)
    assert accepted(limit, "192.0.2.1", 20) == 5
    assert accepted(limit, "192.0.2.2", 20) == 5  # another client's rate is unaffected
    clock.now += 0.4
    assert accepted(limit, "192.0.2.1", 20) == 2
    clock.now += 1000
    assert accepted(limit, "192.0.2.1", 20) == 5  # at most one second's requests accumulate


def test_a_rate_below_one_admits_one_request():
    clock = Clock()
    limit = RateLimit(0.1, Board(1), b"key", clock)
    assert accepted(limit, "192.0.2.1", 3) == 1
    clock.now += 10
    assert accepted(limit, "192.0.2.1", 3) == 1


def test_workers_share_the_rate_and_a_network_counts_as_one_client():
    board, clock = Board(2), Clock()
    workers = [RateLimit(4, board, b"key", clock) for _ in range(2)]
    total = sum(accepted(one, address, 1) for one in workers for address in ["2001:db8::1"] * 5)
    assert total == 4
    assert accepted(workers[0], "2001:db8::ffff", 3) == 0
    assert accepted(workers[0], "2001:db8:0:1::1", 3) == 3


def test_too_many_requests_are_refused_and_health_is_not(tiny_store):
    async def many(client: httpx.AsyncClient) -> Any:
        answers = [await client.post("/classify", content=PNG) for _ in range(8)]
        return answers, [await client.get("/livez") for _ in range(8)]

    answers, health = ask(tiny_store, many, rate_limit=0.001)
    assert [answer.status_code for answer in answers] == [200] + [429] * 7
    assert int(answers[-1].headers["retry-after"]) > 900
    assert {answer.status_code for answer in health} == {200}


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ((), "https://a.org", None),
        (("https://a.org",), "https://a.org", "https://a.org"),
        (("https://a.org",), "https://b.org", None),
        (("https://a.org",), "https://a.org.evil.org", None),
        (("*",), "https://b.org", "*"),
    ],
)
def test_cors_origins(tiny_store, origins, origin, allowed):
    async def both(client: httpx.AsyncClient) -> Any:
        question = {"origin": origin, "access-control-request-method": "POST"}
        return (
            await client.options("/classify", headers=question),
            await client.post("/classify", content=PNG, headers={"origin": origin}),
            await client.post("/classify", content=b"a cat", headers={"origin": origin}),
        )

    before, answer, refusal = ask(tiny_store, both, cors_origins=origins)
    assert before.status_code == (200 if allowed else 405)
    assert (answer.status_code, refusal.status_code) == (200, 415)
    for response in (answer, refusal):
        assert response.headers.get("access-control-allow-origin") == allowed
    if allowed:
        assert before.headers["access-control-allow-methods"] == "POST"
        assert "authorization" in before.headers["access-control-allow-headers"]
    elif origins:
        assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize("text", ["a.org", "https://a.org/path", "https://a.org,nonsense"])
def test_an_invalid_origin_is_refused(monkeypatch, text):
    monkeypatch.setenv("CIFAR10_CORS_ORIGINS", text)
    with pytest.raises(SettingsError, match="CIFAR10_CORS_ORIGINS"):
        read_settings()


def test_an_alias_answers_for_its_model(tiny_store):
    async def both(client: httpx.AsyncClient) -> Any:
        return (
            await client.post("/classify?model=best", content=PNG),
            await client.get("/v2/models/best"),
            await client.get("/models"),
            await client.post("/classify?model=worst", content=PNG),
        )

    answer, protocol, models, missing = ask(tiny_store, both, aliases={"best": "tiny_b"})
    assert answer.json()["model"] == protocol.json()["name"] == "tiny_b"
    assert models.json()["aliases"] == {"best": "tiny_b"}
    assert missing.status_code == 404
    assert "best" in missing.json()["models"]


@pytest.mark.parametrize("aliases", [{"best": "none"}, {"tiny_b": "tiny_a"}])
def test_an_invalid_alias_is_refused(tiny_store, aliases):
    settings = Settings(device="cpu", default_model="tiny_a", aliases=aliases)
    with pytest.raises(ModelNotFoundError, match="CIFAR10_ALIASES"):
        choose(settings, ModelStore(tiny_store))


def test_aliases_come_from_the_environment(monkeypatch, tiny_store):
    monkeypatch.setenv("CIFAR10_ALIASES", "best=tiny_b, fast=tiny_a")
    monkeypatch.setenv("CIFAR10_DEFAULT_MODEL", "best")
    settings = read_settings()
    assert settings.aliases == {"best": "tiny_b", "fast": "tiny_a"}
    assert choose(settings, ModelStore(tiny_store)).default == "tiny_b"
    monkeypatch.setenv("CIFAR10_ALIASES", "best")
    with pytest.raises(SettingsError, match="alias=model"):
        read_settings()


def test_the_answer_returns_the_trace_with_our_span(tiny_store):
    response = ask(
        tiny_store,
        lambda client: client.post("/classify", content=PNG, headers={"traceparent": PARENT}),
    )
    version, trace, span, flags = response.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", PARENT.split("-")[1], "01")
    assert len(span) == 16
    assert span != PARENT.split("-")[2]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        PARENT.upper(),
        PARENT + "-more",
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + PARENT[35:],
        PARENT[:36] + "0" * 16 + PARENT[52:],
    ],
)
def test_an_invalid_trace_is_ignored(value):
    assert Parent.of(value.encode()) is None


def test_a_span_is_a_child_of_the_caller_s_and_contains_no_image_data(tiny_store):
    exporter = InMemorySpanExporter()

    def collect(edge: Any) -> None:
        edge._recorder._spans = Spans(SimpleSpanProcessor(exporter))

    async def both(client: httpx.AsyncClient) -> Any:
        await client.post("/classify", content=PNG, headers={"traceparent": PARENT})
        return await client.get("/nowhere/secret")

    orphan = ask(tiny_store, both, collect)
    child, other = exporter.get_finished_spans()[-2:]
    assert f"{child.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{child.parent.span_id:016x}" == PARENT.split("-")[2]
    assert child.name == "POST /classify"
    assert child.attributes["http.response.status_code"] == 200
    assert child.end_time > child.start_time
    assert other.parent is None
    assert f"{other.context.trace_id:032x}" in orphan.headers["traceparent"]
    assert "secret" not in str(other.to_json())


def test_tracing_without_the_exporter_s_package_stops_startup(monkeypatch, tiny_store):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("service.telemetry.tracing._EXPORTER", "no-such-package")
    settings = Settings(device="cpu", default_model="tiny_a")
    with pytest.raises(SettingsError, match="pip install no-such-package"):
        check_before_start(settings, ModelStore(tiny_store))


@pytest.mark.parametrize(("share", "lines"), [(1.0, 3), (0.0, 0)])
def test_the_access_log_is_off_or_has_one_json_line_per_request(tiny_store, caplog, share, lines):
    async def three(client: httpx.AsyncClient) -> None:
        await client.post("/classify", content=PNG, headers={"traceparent": PARENT})
        await client.post("/classify?model=secret", content=PNG)
        await client.get("/secret")

    # As many as there are, whatever asked whether the edge was ready before.
    logger = logging.getLogger("service.access_log")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        ask(tiny_store, three, access_log=share)
    finally:
        logger.removeHandler(caplog.handler)
    records = [one for one in caplog.records if one.name == "service.access_log"]
    entries = [json.loads(JsonFormatter().format(one)) for one in records]
    shown = [entry for entry in entries if entry["route"] != "/readyz"]
    unique = {(entry["route"], entry["status"]) for entry in shown}
    assert len(unique) == lines
    if lines:
        assert unique == {("/classify", 200), ("/classify", 404), ("other", 404)}
        assert shown[0]["trace_id"] == PARENT.split("-")[1]
        assert "secret" not in json.dumps(entries)


def test_spans_reach_a_collector(tmp_path, tiny_store):
    """Uses a real server, OpenTelemetry's own exporter, and a collector over HTTP."""
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        server = Server(tmp_path, tiny_store, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        try:
            server.wait_until_ready()
            headers = {"traceparent": PARENT}
            answer = httpx.post(f"{server.url}/classify", content=PNG, headers=headers)
            assert answer.status_code == 200
            server.process.send_signal(signal.SIGTERM)  # what has not been sent is sent at the end
            assert server.process.wait(START_SECONDS) == 0
        finally:
            server.kill()
            collector.shutdown()
    assert {path for path, _ in received} == {"/v1/traces"}
    sent = b"".join(
        gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for _, body in received
    )
    assert b"POST /classify" in sent
    assert bytes.fromhex(PARENT.split("-")[1]) in sent
    assert bytes.fromhex(answer.headers["traceparent"].split("-")[2]) in sent
    assert PNG[:16] not in sent
