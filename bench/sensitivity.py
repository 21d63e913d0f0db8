"""``python -m bench sensitivity``: would ``compare`` notice, and does it cry wolf, on this machine?

A gate is worth what it lets through and what it stops. So it is tried on runs whose truth is known:

- **unchanged**: a baseline and ten repeats of it, several runs each: every regression that
  ``compare`` reports between them is a false alarm;
- **a slower server**: the same service, with a fifth of its CPU time a request burnt on top
  (:mod:`bench.planted.sitecustomize`): must be reported;
- **a less accurate model**: the model's own answers with noise on their logarithms, just so much
  that three points of accuracy are lost; as with a real worse model some images are won meanwhile:
  must be reported.

Every round runs each side once, so that a machine that drifts drifts under all of them. The rows
of all runs are kept, one folder a side, for ``compare`` by hand.
"""

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.accuracy import compare_with_labels, predict_probabilities
from bench.compare import Comparison, Finding, Tolerance, compare
from bench.fingerprint import Machine
from bench.generator import LoadPlan
from bench.latency import QUICK_PLAN
from bench.load import server_cpu_us
from bench.measurements import LoadMeasurement
from bench.over_http import Target, load_models, reference_to
from bench.progress import Progress, labelled, silent
from bench.results import Recorder, Row, read_results
from bench.run import Open, RunOutcome, measure_models
from bench.sensitivity_measurements import SensitivityMeasurement, Trial
from cifar10.dataset import Dataset
from cifar10.errors import BenchError
from cifar10.store import ModelStore

PLANTED: Final = Path(__file__).with_name("planted")
BASELINE: Final = "baseline"
SLOWER: Final = "slower_server"
LESS_ACCURATE: Final = "less_accurate"
_POINTS_TOLERANCE: Final = 0.02
_HALVINGS: Final = 40


@dataclass(frozen=True)
class SensitivityPlan:
    """How much is run. About ten seconds a run on two cores."""

    rounds: int = 3
    """Runs of each side."""
    repeats: int = 10
    """Sides that are the baseline again."""
    users: int = 8
    seconds: float = 6.0
    """Of load, of each run."""
    warm_up_seconds: float = 2.0
    slow_down: float = 0.2
    """Planted, as a share of the server's CPU time a request."""
    lost_points: float = 3.0
    """Planted, of accuracy."""
    tolerance: Tolerance = field(default_factory=Tolerance)

    @property
    def load(self) -> LoadPlan:
        """Of each run."""
        return LoadPlan(self.users, self.seconds, self.warm_up_seconds)


@dataclass(frozen=True)
class Bench:
    """What is measured, with what."""

    target: Target
    dataset: Dataset
    open_model: Open
    machine: Machine
    versions: dict[str, str]
    rows: Path
    """Where the rows of all runs go, one folder a side; emptied first."""


def measure_sensitivity(
    bench: Bench, name: str, plan: SensitivityPlan, progress: Progress = silent
) -> SensitivityMeasurement:
    """Try ``compare`` on runs of one model whose truth is known.

    Raises:
        BenchError: a run failed.
        KeyboardInterrupt: interrupted; the rows measured so far are in ``bench.rows``.
    """
    shutil.rmtree(bench.rows, ignore_errors=True)
    cpu_us = _server_cpu_us(bench, name, plan, progress)
    delay_us = plan.slow_down * cpu_us
    unchanged = [BASELINE, *(f"repeat_{number}" for number in range(1, plan.repeats + 1))]
    sides = [*unchanged, SLOWER]
    for number in range(plan.rounds):
        for position, side in enumerate(sides):
            step = number * len(sides) + position
            told = labelled(f"run {step + 1} of {plan.rounds * len(sides)}, {side}", progress)
            command = slowed(bench.target.command, delay_us) if side == SLOWER else None
            _load(bench, name, side, plan.load, told, command)
            if side != SLOWER:
                _in_process(bench, name, side, told)
    lost = _less_accurate(bench, name, plan.lost_points, progress)
    baseline = rows_of(bench, BASELINE)

    def trial(side: str, planted: str, after: Sequence[Row]) -> Trial:
        return as_trial(side, planted, compare(baseline, after, plan.tolerance))

    return SensitivityMeasurement(
        device=bench.target.device,
        rounds=plan.rounds,
        users=plan.users,
        seconds=plan.seconds,
        tolerance_percent=100 * plan.tolerance.speed,
        tolerance_points=plan.tolerance.accuracy_points,
        server_cpu_us=round(cpu_us, 1),
        planted_delay_us=round(delay_us, 1),
        lost_points=round(lost, 2),
        trials=(
            *(trial(side, "nothing", rows_of(bench, side)) for side in unchanged[1:]),
            trial(SLOWER, "server", rows_of(bench, SLOWER)),
            as_trial(
                LESS_ACCURATE,
                "accuracy",
                compare(rows_of(bench, "as_it_is"), rows_of(bench, LESS_ACCURATE), plan.tolerance),
            ),
        ),
    )


def slowed(command: Sequence[str], delay_us: float) -> tuple[str, ...]:
    """The command that starts the same server with a delay planted, in µs of CPU an image."""
    environment = (f"PYTHONPATH={PLANTED}", f"PLANTED_DELAY_US={delay_us:.1f}")
    return ("env", *environment, *command)


def as_trial(side: str, planted: str, comparison: Comparison) -> Trial:
    """What is kept of a comparison: its worst finding, and whether the gate closed."""
    worst = max(comparison.findings, key=_badness, default=None)
    return Trial(
        side=side,
        planted=planted,
        findings=len(comparison.findings),
        regression=comparison.is_regression,
        worst=worst.what if worst else "",
        unit=worst.unit if worst else "",
        change=round(worst.change, 4) if worst else 0.0,
        low=round(worst.low, 4) if worst else 0.0,
        high=round(worst.high, 4) if worst else 0.0,
    )


def _badness(finding: Finding) -> tuple[bool, float]:
    """Regressions first; then by how far the change goes, whichever way."""
    far = abs(finding.change - 1) if finding.unit == "ratio" else abs(finding.change) / 100
    return finding.verdict == "worse", far


def rows_of(bench: Bench, side: str) -> list[Row]:
    """The rows of one side."""
    return [row for machine in read_results(bench.rows / side) for row in machine.rows]


def _recorder(bench: Bench, side: str, *, quick: bool = False) -> Recorder:
    return Recorder(bench.rows / side, bench.machine, bench.versions, quick=quick)


def _load(
    bench: Bench,
    name: str,
    side: str,
    plan: LoadPlan,
    progress: Progress,
    command: Sequence[str] | None = None,
) -> None:
    target = replace(bench.target, command=command or bench.target.command)
    recorder = _recorder(bench, side)
    _whole(load_models(target, [name], bench.dataset, recorder, plan, progress))


def _in_process(bench: Bench, name: str, side: str, progress: Progress) -> None:
    _whole(
        measure_models(
            ModelStore(bench.target.models),
            [name],
            bench.dataset,
            _recorder(bench, side, quick=True),
            open_model=bench.open_model,
            plan=QUICK_PLAN,
            quick=True,
            progress=progress,
        )
    )


def _whole(outcome: RunOutcome) -> None:
    if outcome.interrupted:
        raise KeyboardInterrupt
    for name, reason in outcome.failed.items():
        message = f"{name} {reason}"
        raise BenchError(message)


def _server_cpu_us(bench: Bench, name: str, plan: SensitivityPlan, progress: Progress) -> float:
    """What a request costs the unchanged server: the delay planted is a share of it."""
    for _ in range(plan.rounds):
        told = labelled("what a request costs", progress)
        _load(bench, name, "cost", plan.load, told)
    found = [
        cost
        for row in rows_of(bench, "cost")
        if isinstance(row.measurement, LoadMeasurement)
        and (cost := server_cpu_us(row.measurement)) is not None
    ]
    if not found:
        message = "the server's CPU time is not known; it must be started here (no --url)"
        raise BenchError(message)
    return statistics.median(found)


def _less_accurate(bench: Bench, name: str, points: float, progress: Progress) -> float:
    """Rows of the model as it is and with accuracy lost; returns how many points were."""
    stored = ModelStore(bench.target.models).load(name)
    executor = bench.open_model(stored)
    test = bench.dataset.test
    probabilities = predict_probabilities(executor, test.images, progress)
    worse = with_less_accuracy(probabilities, test.labels, points)
    reference = reference_to(bench.dataset)
    for side, answers in (("as_it_is", probabilities), (LESS_ACCURATE, worse)):
        accuracy = compare_with_labels(
            answers, test.labels, provider=executor.provider, card=stored.card, dataset=reference
        )
        _recorder(bench, side).add(name, stored.card.sha256, reference, accuracy)
    return 100 * (_top1(probabilities, test.labels) - _top1(worse, test.labels))


def with_less_accuracy(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.uint8],
    points: float,
    *,
    seed: int = 0,
) -> NDArray[np.float32]:
    """The same answers with noise on their logarithms, so strong that ``points`` are lost.

    Args:
        probabilities: float32 (N, 10).
        labels: uint8 (N,), the true classes.
        points: of accuracy, to lose.
        seed: of the noise.

    Returns:
        float32 (N, 10), rows that sum to 1.

    Raises:
        BenchError: the model has no such accuracy to lose.
    """
    logarithms = np.log(np.maximum(probabilities, 1e-12))
    noise = np.random.default_rng(seed).standard_normal(probabilities.shape, np.float32)
    before = _top1(probabilities, labels)

    def lost(strength: float) -> float:
        return 100 * (before - _top1(logarithms + strength * noise, labels))

    low, high = 0.0, 100.0
    if lost(high) < points:
        message = f"at {before:.1%} there are no {points:g} points of accuracy to lose"
        raise BenchError(message)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if lost(middle) < points else (low, middle)
        if abs(lost(high) - points) <= _POINTS_TOLERANCE:
            break
    noisy = logarithms + high * noise
    exponentials = np.exp(noisy - noisy.max(axis=1, keepdims=True))
    worse: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return worse


def _top1(scores: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    return float((scores.argmax(axis=1) == labels).mean())
