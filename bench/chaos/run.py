"""``cifar10 bench chaos``: the list of trials, and how they are run and recorded.

Each trial starts its own servers, injects one kind of fault or attack, and reports whether the
promise held. Traffic comes from this machine, so the rates are below the server's maximum.

A new trial is one new file with a :class:`~bench.chaos.trial.Trial` and one entry in
:data:`TRIALS`.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.chaos import (
    bombs,
    full_disk,
    fuzz,
    kill,
    large,
    logs,
    mpo,
    pipelining,
    reload,
    scan_bombs,
    second_server,
    slow_readers,
    soak,
    structure_bombs,
    trailers,
    upgrades,
)
from bench.chaos.trial import ChaosPlan, Trial, TrialRun, TrialSkippedError, measurement_of
from bench.load.loops import run as run_on_exact_loop
from bench.measure.progress import Progress, silent
from bench.measure.survey import RunOutcome, Survey
from bench.rows.files import Recorder
from bench.rows.kinds.service import ChaosMeasurement
from bench.rows.row import Row
from bench.serving.cores import on_cores, pinned, usable
from bench.serving.process import SERVE
from cifar10.errors import BenchError
from cifar10.predictor import Device
from cifar10.store import ModelStore
from cifar10.suggestions import did_you_mean

logger = logging.getLogger(__name__)

TRIALS: Final[dict[str, Trial]] = {
    trial.name: trial
    for trial in (
        kill.TRIAL,
        reload.TRIAL,
        bombs.TRIAL,
        large.TRIAL,
        slow_readers.TRIAL,
        pipelining.TRIAL,
        trailers.TRIAL,
        upgrades.TRIAL,
        scan_bombs.TRIAL,
        mpo.TRIAL,
        structure_bombs.TRIAL,
        full_disk.TRIAL,
        logs.TRIAL,
        second_server.TRIAL,
        fuzz.TRIAL,
        soak.TRIAL,
    )
}
"""Trials by name, in the order in which they run; the longest is last."""


def check_names(names: Sequence[str]) -> None:
    """Raise an error unless all names are trials.

    Raises:
        BenchError: a name is unknown; the message lists the trials.
    """
    for name in names:
        if name not in TRIALS:
            message = f"no trial {name!r}; there are: {', '.join(TRIALS)}."
            raise BenchError(message + did_you_mean(name, TRIALS))


def run_trials(
    models: Path,
    model: str,
    names: Sequence[str],
    recorder: Recorder,
    plan: ChaosPlan,
    *,
    device: Device = "auto",
    progress: Progress = silent,
) -> RunOutcome:
    """Run the named trials, or all, and record each as soon as it has ended.

    Raises:
        BenchError: a trial or the model is unknown, or a row could not be written.
    """
    check_names(names)
    digest = ModelStore(models).card(model).sha256
    with Survey(recorder) as survey:
        for name in names or TRIALS:
            with survey.attempt(name, "chaos", model=model, digest=digest) as subject:
                try:
                    found = run_trial(TRIALS[name], models, model, plan, device, progress)
                except TrialSkippedError as reason:
                    logger.warning("the trial %s was skipped: %s", name, reason)
                    continue
                subject.add(found)
                if not found.holds:
                    subject.blame(f"did not hold: {'; '.join(found.broken)}")
    return survey.outcome


def run_trial(
    trial: Trial,
    models: Path,
    model: str,
    plan: ChaosPlan,
    device: str = "auto",
    progress: Progress = silent,
) -> ChaosMeasurement:
    """Run one trial, with its own server and a copy of the model.

    Raises:
        BenchError: the server does not start.
        TrialSkippedError: the trial cannot be run here.
    """
    command: Sequence[str] = SERVE
    pinning: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    cores = usable()
    if trial.own_core and len(cores) > 1:
        # At a steady rate, a generator on the server's cores takes more CPU time from it the
        # further both fall behind.
        command = (*on_cores(cores[:-1]), *SERVE)
        pinning = pinned(cores[-1])
        plan = replace(plan, workers=min(plan.workers, len(cores) - 1))
    with tempfile.TemporaryDirectory(prefix="bench-chaos-") as folder, pinning:
        store = Path(folder)
        shutil.copytree(models / model, store / model)
        run = TrialRun(trial.name, store, model, plan, device, progress)
        if trial.starts_server:
            verdict = run_on_exact_loop(trial.run(run))
        else:
            with run.serve(trial.settings, command=command):
                verdict = run_on_exact_loop(trial.run(run))
        return measurement_of(trial, run, verdict)


def trials_in(rows: Sequence[Row], model: str, workers: int) -> set[str]:
    """Return the trials recorded for this model; the soak may have run with fewer workers."""
    return {
        found.trial
        for row in rows
        if isinstance(found := row.measurement, ChaosMeasurement)
        and row.model == model
        and (found.workers == workers or (found.trial == "soak" and found.workers < workers))
    }
