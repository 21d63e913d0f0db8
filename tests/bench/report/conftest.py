"""Fixtures: reports of rows made for a test."""

from dataclasses import replace

import pytest

from bench.report.build import prepare
from bench.report.shown import Shown
from bench.rows.files import Recorder, read_results
from tests.bench.conftest import (
    MACHINE,
    TRAINED,
    accuracy,
    add_all,
    cost,
    failure,
    latency,
    load,
    resources,
    robustness,
    throughput,
)


def reports(recorder: Recorder) -> list[Shown]:
    results = recorder.folder.parent
    return prepare(read_results(results), results)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> list[Shown]:
    """Return one machine with everything measured, and a model whose error message is an attack."""
    recorder = Recorder(tmp_path_factory.mktemp("page"), MACHINE, {"python": "3.11.0"})
    add_all(
        recorder, "good", "a" * 64, cost(), accuracy(9_000), latency(900_000),
        throughput(3_000), throughput(9_000, 8), latency(2_000_000, 8), load(),
        robustness("blur"), robustness("JPEG"), resources(), TRAINED,
    )  # fmt: skip
    add_all(recorder, "broken", "b" * 64, replace(
        failure(), message='<script>alert("1")</script> & more'
    ))  # fmt: skip
    return reports(recorder)
