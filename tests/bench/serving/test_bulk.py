"""Tests of requests with many images: interleaved ways, and bodies that the service accepts."""

import contextlib
import itertools

import numpy as np

from bench.load.bodies import encode_npy
from bench.report.build import prepare, render_report
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.service import BulkMeasurement
from bench.serving.bulk import BulkPlan, in_process, in_rounds
from service.classify import read_npy
from tests.bench.conftest import accuracy, add_all, cost


def test_the_ways_are_interleaved() -> None:
    order = []

    def way(name: str):
        def run(seconds: float) -> float:
            order.append(name)
            return seconds * len(order)

        return run

    rates = in_rounds({"a": way("a"), "b": way("b")}, BulkPlan(rounds=3, seconds=2.0))
    assert "".join(order) == "abbaab"
    assert rates == {"a": [2.0, 8.0, 10.0], "b": [4.0, 6.0, 12.0]}


def test_in_process_counts_whole_requests_on_a_given_clock(monkeypatch) -> None:
    sizes = []

    class Counting:
        provider = "CPUExecutionProvider"

        def predict(self, images: np.ndarray) -> np.ndarray:
            sizes.append(len(images))
            return np.zeros((len(images), 10), np.float32)

    monkeypatch.setattr("bench.serving.bulk.pinned", lambda core: contextlib.nullcontext())
    ticks = itertools.count()
    images = np.zeros((40, 32, 32, 3), np.uint8)
    # Read before the first request and before each: 0, 1, 2, then 3 seconds have passed.
    rate = in_process(Counting(), images, 32, 3.0, 0, clock=lambda: float(next(ticks)))
    assert sizes == [32, 32, *(32, 8) * 2]  # two to warm up, then two whole requests
    assert rate == 2 * 40 / 3


def test_the_body_is_what_the_service_reads() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    assert np.array_equal(read_npy(encode_npy(images), 512, [images.shape[1:]]), images)


def test_share_uses_the_faster_in_process_way(recorder: Recorder) -> None:
    found = BulkMeasurement(
        "cpu", 256, 2, 3.0, (1_000.0,) * 3, (2_000.0,) * 3, 32, (1_900.0,) * 3, (1_000.0,) * 3
    )
    add_all(recorder, "good", "a" * 64, cost(), accuracy(9_000), found)
    results = recorder.folder.parent
    text = render_report(prepare(read_results(results), results), results, results)
    assert "| 1,900 (1,900–1,900) | 95 (95–95) | 1,000 (1,000–1,000) | 50 (50–50) |" in text
