"""Tests of compare on realistic noise: planted regressions are found, unchanged runs are not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bench.compare.findings import (
    Comparison,
    Tolerance,
    compare,
    proportions_interval,
)
from bench.rows.files import Recorder
from bench.rows.kinds.service import LoadMeasurement
from bench.rows.kinds.speed import LatencyMeasurement
from bench.rows.machine import Machine
from bench.rows.row import Measurement, Row
from bench.statistics.blocks import blocks_of, ratio_interval
from cifar10.predictor import CPU_PROVIDER
from tests.bench.conftest import REFERENCE, accuracy, failure, load

SAMPLES = 200


def autocorrelated(
    generator: np.random.Generator, count: int, spread: float, correlation: float = 0.9
) -> np.ndarray:
    """A first-order autoregressive series with this standard deviation."""
    noise = generator.normal(0, spread * (1 - correlation**2) ** 0.5, count)
    series = np.empty(count)
    value = generator.normal(0, spread)
    for index in range(count):
        value = correlation * value + noise[index]
        series[index] = value
    return series


def noisy_latency(seed: int, slower: float = 1.0) -> LatencyMeasurement:
    """Latencies of 1 ms with 5 % drift within a run, 2 % between runs, and a few outliers."""
    generator = np.random.default_rng(seed)
    shift = generator.normal(0, 0.02)
    logs = shift + autocorrelated(generator, SAMPLES, 0.05) + generator.normal(0, 0.02, SAMPLES)
    outliers = 1 + 5 * (generator.random(SAMPLES) < 0.01)
    samples = np.exp(logs) * 1e6 * slower * outliers
    taken = tuple(int(sample) for sample in samples)
    return LatencyMeasurement(CPU_PROVIDER, 1, 1, 30, 10, taken, len(taken))


def noisy_load(seed: int, slower: float = 1.0) -> LoadMeasurement:
    generator = np.random.default_rng(seed)
    logs = generator.normal(0, 0.02) + autocorrelated(generator, 20, 0.04, 0.7)
    rates = np.exp(logs) * 1_000 / slower
    return dataclasses.replace(load(), requests_per_second=tuple(int(rate) for rate in rates))


@pytest.fixture
def rows(tmp_path: Path, machine: Machine):
    """Return a function that makes the rows of one side, one run for each measurement."""
    made = 0

    def make(*measurements: Measurement, digest: str = "a" * 64, model: str = "net") -> list[Row]:
        nonlocal made
        found = []
        for measurement in measurements:
            made += 1
            recorder = Recorder(tmp_path / "results", machine, {}, run_id=f"run{made}")
            found.append(recorder.add(model, digest, REFERENCE, measurement))
        return found

    return make


def verdicts(comparison: Comparison) -> list[str]:
    return [found.verdict for found in comparison.findings]


@pytest.mark.parametrize("make", [noisy_latency, noisy_load])
def test_ten_unchanged_repeats_raise_no_alarm_and_20_percent_slower_is_detected(make, rows) -> None:
    """Five runs a side: the slower side is always detected, an equal one never."""
    for repeat in range(10):
        seed = 100 * repeat
        before = rows(*(make(seed + run) for run in range(5)))
        same = rows(*(make(seed + 10 + run) for run in range(5)))
        slower = rows(*(make(seed + 20 + run, slower=1.2) for run in range(5)))
        assert not compare(before, same, resamples=200).is_regression
        assert compare(before, slower, resamples=200).is_regression


def test_three_points_less_accuracy_is_a_regression_and_equal_accuracy_is_not(rows) -> None:
    before = rows(accuracy(6_987))
    worse = rows(accuracy(6_687), digest="b" * 64)
    (found,) = compare(before, worse).findings
    assert (found.verdict, round(found.change, 2)) == ("worse", -3.0)
    assert verdicts(compare(worse, before)) == ["better"]
    assert not compare(before, rows(accuracy(6_987))).is_regression
    assert not compare(before, rows(accuracy(6_937))).is_regression


def test_accuracy_comes_from_the_newest_digest(rows) -> None:
    side = [*rows(accuracy(9_000), digest="old"), *rows(accuracy(6_987), digest="new")]
    (found,) = compare(side, rows(accuracy(6_987))).findings
    assert found.change == 0


def test_proportions_without_pairs_are_wider() -> None:
    difference, interval = proportions_interval(900, 1_000, 900, 1_000)
    assert difference == 0
    assert interval.high == pytest.approx(2.575829 * (2 * 0.09 / 1_000) ** 0.5)


def test_the_interval_of_equal_constants_is_exact() -> None:
    ones = [blocks_of(np.ones(100), 10)]
    ratio, interval = ratio_interval(ones, [blocks_of(np.full(100, 1.2), 10)], 50)
    assert (ratio, interval.low, interval.high) == pytest.approx((1.2, 1.2, 1.2))


def test_blocks_make_the_interval_of_drifting_samples_honest() -> None:
    """Resampling single samples would give a random walk a far too narrow interval."""
    series = np.exp(autocorrelated(np.random.default_rng(3), 2_000, 0.1, 0.99))
    _, single = ratio_interval([list(series[:, None])], [[np.ones(1)]], 50, resamples=200)
    _, block = ratio_interval([blocks_of(series, 10)], [[np.ones(1)]], 50, resamples=200)
    assert block.high - block.low > 3 * (single.high - single.low)


def test_failures_are_regressions_and_missing_rows_are_listed(rows) -> None:
    before = rows(noisy_latency(1), noisy_load(1))
    found = compare(before, rows(noisy_latency(2), failure("load")))
    assert found.failures == ("net failed at load: RuntimeError: out of memory |\n at node 7",)
    assert found.is_regression
    missing = compare(before, rows(noisy_latency(2)))
    assert not missing.failures
    assert [line.startswith("net load") for line in missing.only_one_side] == [True]
    mended = compare(before, rows(failure("load"), noisy_load(2)))
    assert not mended.failures


def test_a_single_figure_a_run_needs_several_runs(rows) -> None:
    """Server CPU a request varies least of all figures, but one value has no interval."""

    def cpu(seconds: float, seed: int) -> LoadMeasurement:
        return dataclasses.replace(noisy_load(seed), server_cpu_seconds=seconds)

    before = rows(*(cpu(8.0 + run / 100, run) for run in range(3)))
    after = rows(*(cpu(9.6 + run / 100, run) for run in range(3)))
    few = compare(before[:2], after[:2], resamples=200)
    assert [found.what.split(",")[1] for found in few.findings] == [" requests/s"]
    many = compare(before, after, resamples=200)
    (found,) = [found for found in many.findings if "CPU" in found.what]
    assert found.verdict == "worse"
    assert found.change == pytest.approx(1.2, rel=0.01)


def test_speed_is_not_compared_between_machines(rows) -> None:
    before = rows(noisy_latency(1))
    other = [
        dataclasses.replace(row, machine="elsewhere") for row in rows(noisy_latency(2, slower=9))
    ]
    found = compare(before, other)
    assert found.findings == ()
    assert "different machines" in found.notes[0]


def test_tolerance_is_applied_as_stated(rows) -> None:
    before = rows(*(noisy_latency(run) for run in range(3)))
    slower = rows(*(noisy_latency(10 + run, slower=1.25) for run in range(3)))
    assert compare(before, slower, Tolerance(speed=0.05), resamples=200).is_regression
    assert not compare(before, slower, Tolerance(speed=0.5), resamples=200).is_regression
    assert verdicts(compare(before, slower, Tolerance(speed=0.5), resamples=200)) == ["same"]


def drifting_loads(seed: int, slower: float) -> tuple[list[Measurement], list[Measurement]]:
    """Twenty alternating windows of two servers, on a machine that drifts by a factor of 2."""
    generator = np.random.default_rng(seed)
    drift = np.cumsum(generator.normal(0, 0.05, 40)) + 0.35 * np.sin(np.arange(40) / 6)
    sides: tuple[list[Measurement], list[Measurement]] = ([], [])
    for position, level in enumerate(drift):
        side = position % 2
        cost = np.exp(level + generator.normal(0, 0.03)) * (slower if side else 1.0)
        sides[side].append(
            dataclasses.replace(
                load(), requests_per_second=(), server_cpu_seconds=10 * cost, seconds=cost
            )
        )
    return sides


@pytest.mark.parametrize(("slower", "verdict"), [(1.0, "same"), (1.2, "worse")])
def test_runs_taken_in_turn_are_compared_as_pairs(rows, slower: float, verdict: str) -> None:
    before, after = drifting_loads(3, slower)
    pairs = zip(before, after, strict=True)
    made = [rows(measurement) for pair in pairs for measurement in pair]
    first = [row for index, side in enumerate(made) if index % 2 == 0 for row in side]
    second = [row for index, side in enumerate(made) if index % 2 == 1 for row in side]
    found = compare(first, second).findings
    assert {finding.method for finding in found} == {"bootstrap of pairs"}
    assert {finding.verdict for finding in found} == {verdict}
    # one side after the other: the same figures, but the drift is no longer shared
    apart = [rows(measurement) for measurement in (*before, *after)]
    unpaired = compare([row for side in apart[:20] for row in side],
                       [row for side in apart[20:] for row in side]).findings  # fmt: skip
    assert {finding.method for finding in unpaired} == {"bootstrap of runs"}
    assert {finding.verdict for finding in unpaired} == {"unclear"}


def test_accuracy_on_the_same_images_has_mcnemars_99_percent_interval(rows) -> None:
    """1,000 images, 20 lost and none won: −2 points, standard error √(20 − 0.4) / 1000."""
    (found,) = compare(rows(accuracy(700, 1_000)), rows(accuracy(680, 1_000))).findings
    assert found.method == "McNemar, paired"
    assert found.change == pytest.approx(-2)
    half = 100 * 2.575829 * (20 - 0.4) ** 0.5 / 1_000
    assert (found.low, found.high) == pytest.approx((-2 - half, -2 + half))
