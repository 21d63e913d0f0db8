"""openapi.json is true: whatever is sent gets an answer that it describes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from service.status import STATIC
from tests.service.test_serve import Server

SCHEMA = schemathesis.openapi.from_path(str(STATIC / "openapi.json"))

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("openapi"), tiny_store)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@SCHEMA.parametrize()
@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_every_answer_is_as_described(case: schemathesis.Case, server: Server):
    case.call_and_validate(base_url=server.url, checks=CHECKS)
