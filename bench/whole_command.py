"""``python -m bench all``."""

import argparse

from rich.console import Console

from bench.agreement import AgreementPlan
from bench.choices import (
    chosen_dataset,
    chosen_models,
    new_recorder,
    open_model,
)
from bench.console import progress_bar
from bench.everything import new_session_id, run_stages, session_of
from bench.fingerprint import read_machine
from bench.generator import LoadPlan
from bench.latency import QUICK_PLAN, LatencyPlan
from bench.outcomes import conclude, rows_here
from bench.over_http import Target
from bench.report import prepare, write_report
from bench.results import read_results
from bench.run import RunOutcome
from bench.scenarios import QUICK_SCENARIO_PLAN, ScenarioPlan
from bench.stages import Everything, stages_of
from cifar10.environment import models_dir
from cifar10.store import ModelStore


def measure_everything(options: argparse.Namespace, errors: Console) -> int:
    """Everything on every model, then the report."""
    store = ModelStore(models_dir())
    digests = {name: store.card(name).sha256 for name in chosen_models(store, options.models)}
    session_id = new_session_id()
    if options.resume:
        folder = options.results / read_machine().name
        session_id = session_of(rows_here(options.results), str(folder), quick=options.quick)
    errors.print(f"session {session_id}; Ctrl-C, then --resume, goes on with it", highlight=False)
    quick = options.quick
    with progress_bar(errors) as progress:
        session = Everything(
            target=Target(models_dir(), device=options.device),
            dataset=chosen_dataset(options, progress),
            recorder=new_recorder(options, session_id),
            open_model=lambda stored: open_model(stored, options.device, 1),
            progress=progress,
            quick=quick,
            latency=QUICK_PLAN if quick else LatencyPlan(threads=1),
            scenarios=QUICK_SCENARIO_PLAN if quick else ScenarioPlan(),
            load=LoadPlan(seconds=3, warm_up_seconds=1) if quick else LoadPlan(),
            agreement=AgreementPlan(1, 1, 3) if quick else AgreementPlan(),
        )
        outcome = run_stages(
            stages_of(session),
            digests,
            lambda: [row for row in rows_here(options.results) if row.run_id == session_id],
            lambda line: errors.print(line, highlight=False, soft_wrap=True),
        )
    if not outcome.interrupted:
        reports = prepare(read_results(options.results), options.results)
        for path in write_report(reports, options.output):
            errors.print(f"wrote {path}", highlight=False, soft_wrap=True)
    measured = list(dict.fromkeys(name for names in outcome.measured.values() for name in names))
    whole = RunOutcome(measured, outcome.failed, outcome.interrupted)
    return conclude(whole, errors, options)
