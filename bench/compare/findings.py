"""Find significant changes between two sets of rows (``cifar10 compare A B``).

A change is reported as better or worse only if its whole interval lies beyond a stated tolerance,
on one side.

- **Accuracy**: if both rows record which images were classified correctly, McNemar's paired
  comparison on the same images; else the difference of two proportions. The interval of
  the difference is at 99 %.
- **Speed**: 99 % interval of the ratio, by a bootstrap of blocks of successive samples and, with
  several runs on a side, of whole runs (:mod:`bench.statistics.blocks`). All runs of a side count.
  Interleaved runs (A B A B), at least eight a side, are resampled as pairs, which cancels the
  machine's drift. Running one whole side after the other compares two states of the machine. One
  run cannot show the variance between runs, so with fewer than three a side no change of speed is
  reported as significant.

Only central values of latencies and rates are compared (p50, and SingleStream's p90); the p99 of a
short run is too uncertain. All functions are pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from bench.rows.kinds.accuracy import AccuracyMeasurement
from bench.rows.kinds.service import LoadMeasurement
from bench.rows.kinds.session import FailureMeasurement
from bench.rows.kinds.speed import LatencyMeasurement, ScenarioMeasurement, ThroughputMeasurement
from bench.rows.row import Measurement, Row
from bench.statistics.blocks import (
    RESAMPLES,
    Blocks,
    Statistic,
    blocks_of,
    paired_ratio_interval,
    ratio_interval,
)
from bench.statistics.samples import Interval
from cifar10.paired import mcnemar

Verdict = Literal["same", "better", "worse", "unclear"]
"""Verdict on one figure.

``same``: the interval is within the tolerance. ``unclear``: it extends from within the tolerance to
beyond it; measure longer.
"""

CONFIDENCE: Final = 0.99
_Z: Final = 2.5758293035489004
"""Two-sided quantile of the standard normal distribution for :data:`CONFIDENCE`."""
_LOAD_BLOCK_S: Final = 4
"""Block length, in seconds, for resampling per-second rates."""
_SCENARIO_BLOCKS: Final = 12
_LEAST_PAIRS: Final = 8
"""Minimum number of interleaved runs a side for resampling in pairs."""
_LEAST_RUNS: Final = 3
"""Minimum number of runs a side for a figure with one value a run (CPU a request, Server's rate).
"""
_REVERSED: Final[dict[Verdict, Verdict]] = {
    "better": "worse", "worse": "better", "same": "same", "unclear": "unclear"
}  # fmt: skip

_Group = tuple[str, str, str]
"""Key of a group: model, kind and key of its rows."""


@dataclass(frozen=True)
class Tolerance:
    """Changes too small to report."""

    speed: float = 0.10
    """Relative change: with 0.10 a latency may grow, or a rate shrink, by 10 %."""
    accuracy_points: float = 0.5


@dataclass(frozen=True)
class Finding:
    """Comparison of one figure that both sides have."""

    model: str
    what: str
    unit: str
    """Unit of the change: ``ratio`` of B to A, or ``points`` of difference (B − A)."""
    change: float
    low: float
    high: float
    verdict: Verdict
    method: str
    runs: tuple[int, int]
    """Number of runs of A and of B."""


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison."""

    findings: tuple[Finding, ...]
    failures: tuple[str, ...]
    """Measurements that A has and B failed; each is a regression."""
    only_one_side: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_regression(self) -> bool:
        """Whether B is worse than A in any figure."""
        return bool(self.failures) or any(found.verdict == "worse" for found in self.findings)


@dataclass(frozen=True)
class _Series:
    """Samples of one run, cut into blocks, with the statistic to compare."""

    blocks: Blocks
    statistic: Statistic
    higher_is_better: bool
    what: str
    least_runs: int = 1
    """Minimum number of runs a side; a run with a single figure shows no spread."""


def compare(
    before: Sequence[Row],
    after: Sequence[Row],
    tolerance: Tolerance = Tolerance(),
    *,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare the rows of B (``after``) with those of A (``before``).

    For each model, each side's newest digest is used; the two may differ. Speed is compared only
    between rows of the same machine.
    """
    left, right = _grouped(before), _grouped(after)
    findings: list[Finding] = []
    notes: set[str] = set()
    for group in left.keys() & right.keys():
        model, kind, _ = group
        if kind == "accuracy":
            findings.append(_accuracy(model, left[group][-1], right[group][-1], tolerance))
        elif {row.machine for row in left[group]} != {row.machine for row in right[group]}:
            notes.add(f"{model}, {kind}: measured on different machines: speed is not compared")
        else:
            findings += _speeds(model, left[group], right[group], tolerance, resamples)
    if any(min(found.runs) < _LEAST_RUNS and found.unit == "ratio" for found in findings):
        notes.add(
            f"fewer than {_LEAST_RUNS} runs a side: how much runs differ on this machine is not "
            "known, so no change of speed is called real; take several runs of each, in turn"
        )
    return Comparison(
        findings=tuple(sorted(findings, key=lambda found: (found.model, found.what))),
        failures=tuple(sorted(_failures(before, after))),
        only_one_side=tuple(
            sorted([*_only_in("A", left, right), *_only_in("B", right, left)]),
        ),
        notes=tuple(sorted(notes)),
    )


def _only_in(side: str, here: Iterable[_Group], there: Iterable[_Group]) -> list[str]:
    alone = set(here) - set(there)
    return [f"{' '.join(group)}: only in {side}" for group in alone if group[1] != "failure"]


def proportions_interval(
    correct_before: int, count_before: int, correct_after: int, count_after: int
) -> tuple[float, Interval]:
    """Return the difference of two accuracies (0–1) and its 99 % interval.

    The samples are treated as independent. The interval is wider than the paired one on the same
    images.
    """
    p, q = correct_before / count_before, correct_after / count_after
    half = _Z * (p * (1 - p) / count_before + q * (1 - q) / count_after) ** 0.5
    return q - p, Interval(q - p - half, q - p + half)


def _accuracy(model: str, before: Row, after: Row, tolerance: Tolerance) -> Finding:
    a, b = before.measurement, after.measurement
    if not isinstance(a, AccuracyMeasurement) or not isinstance(b, AccuracyMeasurement):
        raise TypeError
    same_images = before.dataset == after.dataset and a.top1.count == b.top1.count
    if a.right is not None and b.right is not None and same_images:
        method = "McNemar, paired"
        paired = mcnemar(b.right, a.right, z=_Z)
        found = (paired.difference, paired.low, paired.high)
    else:
        method = "two proportions" if same_images else "two proportions, different images"
        difference, interval = proportions_interval(
            a.top1.correct, a.top1.count, b.top1.correct, b.top1.count
        )
        found = (difference, interval.low, interval.high)
    change, low, high = (100 * value for value in found)
    verdict = _judge(low, high, -tolerance.accuracy_points, tolerance.accuracy_points)
    return Finding(model, "accuracy", "points", change, low, high, verdict, method, (1, 1))


def _speeds(
    model: str,
    before: Sequence[Row],
    after: Sequence[Row],
    tolerance: Tolerance,
    resamples: int,
) -> list[Finding]:
    """Return a finding for each speed figure in rows of one kind and key."""
    sides: tuple[dict[str, list[_Series]], dict[str, list[_Series]]] = ({}, {})
    for side, rows in zip(sides, (before, after), strict=True):
        for row in rows:
            for series in _series(row.measurement):
                side.setdefault(series.what, []).append(series)
    in_turn = _in_turn(before, after)
    return [
        _speed(
            model,
            before[-1].key,
            sides[0][what],
            sides[1][what],
            tolerance,
            resamples,
            in_turn=in_turn,
        )
        for what in sides[0].keys() & sides[1].keys()
        if min(len(side[what]) for side in sides) >= sides[0][what][0].least_runs
    ]


def _speed(
    model: str,
    key: str,
    left: Sequence[_Series],
    right: Sequence[_Series],
    tolerance: Tolerance,
    resamples: int,
    *,
    in_turn: bool,
) -> Finding:
    kind = left[-1]
    paired = in_turn and len(left) == len(right)
    interval_of = paired_ratio_interval if paired else ratio_interval
    ratio, interval = interval_of(
        [series.blocks for series in left],
        [series.blocks for series in right],
        kind.statistic,
        confidence=CONFIDENCE,
        resamples=resamples,
    )
    # Use the same bounds for a latency and its reciprocal, so that no unit is judged more strictly.
    slack = 1 + tolerance.speed
    verdict = _judge(interval.low, interval.high, 1 / slack, slack)
    if not kind.higher_is_better:
        verdict = _REVERSED[verdict]
    if min(len(left), len(right)) < _LEAST_RUNS and verdict in ("better", "worse"):
        verdict = "unclear"  # on a shared machine two equal runs differed by a factor of 2
    return Finding(
        model=model,
        what=f"{kind.what}, {key}",
        unit="ratio",
        change=ratio,
        low=interval.low,
        high=interval.high,
        verdict=verdict,
        method="bootstrap of pairs"
        if paired
        else "block bootstrap"
        if kind.least_runs == 1
        else "bootstrap of runs",
        runs=(len(left), len(right)),
    )


def _series(measurement: Measurement) -> list[_Series]:
    """Return the speed figures in a row; other kinds have none."""
    match measurement:
        case LatencyMeasurement():
            samples = np.asarray(measurement.samples_ns, np.float64)
            blocks = blocks_of(samples, measurement.rounds)
            return [_Series(blocks, 50, higher_is_better=False, what="latency p50")]
        case ThroughputMeasurement():
            pairs = zip(measurement.block_images, measurement.block_ns, strict=True)
            rates = np.array([images * 1e9 / ns for images, ns in pairs])
            blocks = blocks_of(rates, rates.size)
            return [_Series(blocks, 50, higher_is_better=True, what="throughput")]
        case LoadMeasurement():
            return _load_series(measurement)
        case ScenarioMeasurement():
            return _scenario_series(measurement)
        case _:
            return []


def _load_series(measurement: LoadMeasurement) -> list[_Series]:
    found = []
    rates = np.asarray(measurement.requests_per_second, np.float64)
    if rates.sum() and measurement.rate_per_s is None:  # in an open loop it is the offered rate
        blocks = blocks_of(rates, max(2, rates.size // _LOAD_BLOCK_S))
        found.append(_Series(blocks, None, higher_is_better=True, what="load, requests/s"))
    elif measurement.rate_per_s is None:  # shorter than a second
        rate = measurement.request_rate
        found.append(_single(rate, "load, requests/s", higher_is_better=True))
    cpu_us = measurement.server_cpu_us
    if cpu_us:
        what = "load, server CPU a request"
        found.append(_single(cpu_us, what, higher_is_better=False))
    return found


def _scenario_series(measurement: ScenarioMeasurement) -> list[_Series]:
    if measurement.scenario == "server":
        rate = measurement.rate_per_s
        return [_single(rate, "Server rate", higher_is_better=True)] if rate else []
    if measurement.scenario == "offline":
        counts = np.asarray(measurement.window_queries, np.float64)
        rates = counts * measurement.images_per_query / (measurement.seconds / counts.size)
        blocks = blocks_of(rates, rates.size)
        return [_Series(blocks, None, higher_is_better=True, what="Offline throughput")]
    times = measurement.times_ms
    if times.size == 0:
        return []
    blocks = blocks_of(times, _SCENARIO_BLOCKS)
    if measurement.scenario == "single_stream":
        return [_Series(blocks, 90, higher_is_better=False, what="SingleStream p90")]
    return [_Series(blocks, 50, higher_is_better=False, what="MultiStream p50")]


def _in_turn(before: Sequence[Row], after: Sequence[Row]) -> bool:
    """Return whether the runs alternate between the sides (A B A B …); sides are oldest first."""
    if len(before) != len(after) or len(before) < _LEAST_PAIRS:
        return False
    first, second = sorted((before, after), key=lambda rows: rows[0].created)
    times = [row.created for pair in zip(first, second, strict=True) for row in pair]
    return times == sorted(times)


def _single(value: float, what: str, *, higher_is_better: bool) -> _Series:
    return _Series([np.array([value])], None, higher_is_better, what, _LEAST_RUNS)


def _judge(low: float, high: float, floor: float, ceiling: float) -> Verdict:
    """Return the verdict on a quantity that should be high."""
    if high < floor:
        return "worse"
    if low > ceiling:
        return "better"
    return "same" if floor <= low and high <= ceiling else "unclear"


def _grouped(rows: Iterable[Row]) -> dict[_Group, list[Row]]:
    """Group the rows of the newest digest by model, kind and key, oldest first.

    Quick rows are used only if there are no full ones.
    """
    ordered = sorted(rows, key=lambda row: row.created)
    digests = {row.model: row.digest for row in ordered if row.digest}
    groups: dict[_Group, list[Row]] = {}
    for row in ordered:
        if row.digest in (digests.get(row.model, ""), ""):
            groups.setdefault((row.model, row.kind, row.key), []).append(row)
    return {
        group: [row for row in found if not row.quick] or found for group, found in groups.items()
    }


def _failures(before: Sequence[Row], after: Sequence[Row]) -> set[str]:
    """Return B's last failures in measurements that A has."""
    able = {(row.model, row.kind) for row in before if row.kind != "failure"}
    found = set()
    for (model, kind, stage), rows in _grouped(after).items():
        reason = rows[-1].measurement
        stage_kind = "cost" if stage == "open" else stage
        if kind != "failure" or not isinstance(reason, FailureMeasurement):
            continue
        mended = any(
            row.model == model and row.kind == stage_kind and row.created > rows[-1].created
            for row in after
        )
        if (model, stage_kind) in able and not mended:
            found.add(f"{model} failed at {stage}: {reason.error}: {reason.message}")
    return found
