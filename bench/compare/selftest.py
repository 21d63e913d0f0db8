"""Measure ``compare``'s detection and false-alarm rates here (``cifar10 bench sensitivity``).

``compare`` judges runs for which the correct verdict is known:

- **unchanged**: a baseline and ten repeats of it, several runs each. Every regression reported
  between them is a false alarm.
- **a slower server**: the same service with a fifth of its CPU time a request added
  (:mod:`bench.compare.planted.sitecustomize`). It must be reported.
- **a less accurate model**: the model's own answers with noise on their logarithms, strong
  enough to lose three points of accuracy; as with a real worse model, some images are gained. It
  must be reported.

All services run at once, and each gets a window of a second in every round
(:mod:`bench.serving.windows`), so that drift of the machine affects all of them. The rows of all
windows are kept, one folder a side, so that ``compare`` can also be run by hand.
"""

import contextlib
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.compare.findings import Comparison, Finding, Tolerance, compare
from bench.load.locust import LoadPlan
from bench.measure.accuracy import compare_with_labels, predict_probabilities
from bench.measure.in_process import measure_models
from bench.measure.latency import QUICK_PLAN
from bench.measure.progress import Progress, labelled, silent
from bench.measure.setup import Open, Setup
from bench.measure.survey import RunOutcome, reference_to
from bench.rows.files import Recorder, read_results
from bench.rows.kinds.session import SensitivityMeasurement, Trial
from bench.rows.machine import Machine
from bench.rows.row import Row
from bench.serving.process import Server, device_named
from bench.serving.target import Target
from bench.serving.windows import Window, take_turns
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
    """Sizes and durations of the self-test."""

    rounds: int = 40
    """Number of load windows on each side."""
    repeats: int = 10
    """Number of sides that repeat the baseline."""
    in_process_runs: int = 3
    """Number of quick, interleaved runs in process for each unchanged side."""
    users: int = 8
    seconds: float = 0.9
    """Measured time of one window."""
    warm_up_seconds: float = 0.15
    slow_down: float = 0.2
    """Planted CPU time, as a share of the server's own CPU time a request."""
    lost_points: float = 3.0
    """Percentage points of accuracy to lose."""
    tolerance: Tolerance = field(default_factory=Tolerance)

    @property
    def window(self) -> LoadPlan:
        """Return one window of load."""
        return LoadPlan(self.users, self.seconds, self.warm_up_seconds)


@dataclass(frozen=True)
class Bench:
    """Models, images and output of a self-test."""

    target: Target
    dataset: Dataset
    open_model: Open
    machine: Machine
    versions: dict[str, str]
    rows: Path
    """Folder for the rows of all runs, one subfolder a side; emptied first."""


def measure_sensitivity(
    bench: Bench, name: str, plan: SensitivityPlan, progress: Progress = silent
) -> SensitivityMeasurement:
    """Run ``compare`` on runs of one model for which the correct verdict is known.

    Raises:
        BenchError: a run failed.
        KeyboardInterrupt: interrupted; the rows measured so far are in ``bench.rows``.
    """
    shutil.rmtree(bench.rows, ignore_errors=True)
    repeats = [f"repeat_{number}" for number in range(1, plan.repeats + 1)]
    for number in range(plan.in_process_runs):
        for side in (BASELINE, *repeats):
            told = labelled(f"in process, run {number + 1} of {side}", progress)
            _in_process(bench, name, side, told)
    cpu_us, delay_us = _over_http(bench, name, repeats, plan, progress)
    lost = _less_accurate(bench, name, plan.lost_points, progress)
    baseline = rows_of(bench, BASELINE)

    def trial(side: str, planted: str, after: Sequence[Row]) -> Trial:
        return as_trial(side, planted, compare(baseline, after, plan.tolerance))

    return SensitivityMeasurement(
        device=device_named(bench.target.device),
        rounds=plan.rounds,
        users=plan.users,
        seconds=plan.seconds,
        tolerance_percent=100 * plan.tolerance.speed,
        tolerance_points=plan.tolerance.accuracy_points,
        server_cpu_us=round(cpu_us, 1),
        planted_delay_us=round(delay_us, 1),
        lost_points=round(lost, 2),
        trials=(
            *(trial(side, "nothing", rows_of(bench, side)) for side in repeats),
            trial(SLOWER, "server", rows_of(bench, SLOWER)),
            as_trial(
                LESS_ACCURATE,
                "accuracy",
                compare(rows_of(bench, "as_it_is"), rows_of(bench, LESS_ACCURATE), plan.tolerance),
            ),
        ),
    )


def slowed(command: Sequence[str], delay_us: float) -> tuple[str, ...]:
    """Return the command that starts the same server with added CPU time, in µs an image."""
    environment = (f"PYTHONPATH={PLANTED}", f"PLANTED_DELAY_US={delay_us:.1f}")
    return ("env", *environment, *command)


def as_trial(side: str, planted: str, comparison: Comparison) -> Trial:
    """Return the summary of a comparison: its worst finding, and whether it is a regression."""
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
    """Return a sort key: regressions first, then by the size of the change in either direction."""
    far = abs(finding.change - 1) if finding.unit == "ratio" else abs(finding.change) / 100
    return finding.verdict == "worse", far


def rows_of(bench: Bench, side: str) -> list[Row]:
    """Return the rows of one side."""
    return [row for machine in read_results(bench.rows / side) for row in machine.rows]


def _recorder(bench: Bench, side: str, *, quick: bool = False) -> Recorder:
    return Recorder(bench.rows / side, bench.machine, bench.versions, quick=quick)


def _over_http(
    bench: Bench, name: str, repeats: Sequence[str], plan: SensitivityPlan, progress: Progress
) -> tuple[float, float]:
    """Measure all services under load, interleaved, and record the rows.

    Returns:
        The unchanged server's CPU time a request and the planted delay an image, in µs.
    """
    device = device_named(bench.target.device)
    digest = ModelStore(bench.target.models).card(name).sha256
    window = Window(bench.dataset.test.images, model=name, device=device, plan=plan.window)
    with contextlib.ExitStack() as stack:

        def start(command: Sequence[str]) -> Server:
            target = replace(bench.target, command=command)
            _, server = stack.enter_context(target.serving(name))
            if server is None:
                message = "this command starts the servers itself: leave out the URL"
                raise BenchError(message)
            return server

        sides = []
        for number, side in enumerate((*repeats, BASELINE)):
            progress("starting services", number, len(repeats) + 2)
            sides.append((side, start(bench.target.command)))
        cpu_us = _server_cpu_us(window, sides[-1][1], plan)
        delay_us = plan.slow_down * cpu_us
        sides.append((SLOWER, start(slowed(bench.target.command, delay_us))))
        recorders = {side: _recorder(bench, side) for side, _ in sides}
        reference = reference_to(bench.dataset)
        for number, side, found in take_turns(sides, window, plan.rounds):
            progress("windows in turn", number, plan.rounds)
            recorders[side].add(name, digest, reference, found)
    return cpu_us, delay_us


def _in_process(bench: Bench, name: str, side: str, progress: Progress) -> None:
    _whole(
        measure_models(
            Setup(
                ModelStore(bench.target.models),
                bench.dataset,
                _recorder(bench, side, quick=True),
                bench.open_model,
                progress,
            ),
            [name],
            QUICK_PLAN,
            quick=True,
        )
    )


def _whole(outcome: RunOutcome) -> None:
    if outcome.interrupted:
        raise KeyboardInterrupt
    for name, reason in outcome.failed.items():
        message = f"{name} {reason}"
        raise BenchError(message)


def _server_cpu_us(window: Window, server: Server, plan: SensitivityPlan) -> float:
    """Return the unchanged server's CPU time a request, which sets the planted delay."""
    found = [
        cost
        for _, _, load in take_turns([(BASELINE, server)], window, max(1, plan.rounds // 4))
        if (cost := load.server_cpu_us) is not None
    ]
    return statistics.median(found)


def _less_accurate(bench: Bench, name: str, points: float, progress: Progress) -> float:
    """Record the model unchanged and with reduced accuracy; return the points lost."""
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
    labels: NDArray[np.integer],
    points: float,
    *,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Add noise to the log-probabilities, strong enough to lose ``points`` of accuracy.

    Args:
        probabilities: float32 (N, 10).
        labels: uint8 (N,), the true classes.
        points: percentage points of accuracy to lose.

    Returns:
        float32 (N, 10), rows that sum to 1.

    Raises:
        BenchError: the model's accuracy is too low to lose that much.
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


def _top1(scores: NDArray[np.float32], labels: NDArray[np.integer]) -> float:
    return float((scores.argmax(axis=1) == labels).mean())
