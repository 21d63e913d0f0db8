"""openapi.json is true: whatever is sent gets an answer that it describes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from service.status import STATIC
from tests.service import test_batch, test_protocol
from tests.service.cases import JPEG, PNG
from tests.service.test_serve import Server

SCHEMA = schemathesis.openapi.from_path(str(STATIC / "openapi.json"))

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


ONE = test_batch.npy(test_batch.ONE)


@schemathesis.serializer("application/x-npy")
def _array(_: Any, value: Any) -> bytes:
    """What schemathesis makes up for a file: its own bytes, or one image where it has none."""
    return value if isinstance(value, bytes) else ONE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("openapi"), tiny_store)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@SCHEMA.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described(case: schemathesis.Case, server: Server):
    case.call_and_validate(base_url=server.url, checks=CHECKS)


GOOD = {
    "image": ("/classify", {"content": JPEG}),
    "top_k": ("/classify?model=tiny_b&top_k=10", {"files": {"image": PNG}}),
    "explained": ("/classify?explain=true", {"content": PNG}),
    "parts": ("/classify/batch", {"files": [("image", JPEG), ("image", b"a cat")]}),
    "array": ("/classify/batch", {"content": ONE, "headers": test_batch.NPY_TYPE}),
    "tensor": ("/v2/models/{name}/infer", test_protocol.ask()),
    "binary": ("/v2/models/{name}/infer", test_protocol.binary()),
    "classes": (
        "/v2/models/{name}/infer",
        test_protocol.ask(outputs=[{"name": "probabilities", "parameters": {"classification": 2}}]),
    ),
}


@pytest.mark.parametrize(("address", "arguments"), GOOD.values(), ids=GOOD)
def test_every_good_answer_is_as_described(server: Server, address: str, arguments: Any):
    url = server.url + address.replace("{name}", "tiny_a")
    response = httpx.post(url, **arguments)
    assert response.status_code == 200, response.text
    response.request.read()
    SCHEMA[address.partition("?")[0]]["POST"].validate_response(response)
