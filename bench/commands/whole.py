"""``python -m bench all``."""

import argparse
from typing import Final

from rich.console import Console

from bench.commands.choices import (
    chosen_dataset,
    chosen_models,
    new_recorder,
    open_model,
)
from bench.commands.console import progress_bar
from bench.commands.outcomes import conclude, rows_here
from bench.load.locust import LoadPlan
from bench.measure.in_process import RunOutcome
from bench.measure.latency import QUICK_PLAN
from bench.report.build import prepare, write_report
from bench.rows.files import Row, read_results
from bench.rows.machine import read_machine
from bench.scenarios.rules import QUICK_SCENARIO_PLAN
from bench.serving.target import Target
from bench.session.plan import Lengths, lengths_for
from bench.session.resume import new_session_id, run_stages, session_of
from bench.session.stages import Everything, stages_of
from cifar10.environment import models_dir
from cifar10.errors import BenchError
from cifar10.store import ModelStore

QUICK_LENGTHS: Final = Lengths(QUICK_SCENARIO_PLAN, LoadPlan(seconds=3, warm_up_seconds=1))


def measure_everything(options: argparse.Namespace, errors: Console) -> int:
    """Everything on every model, then the report."""
    store = ModelStore(models_dir())
    cards = [store.card(name) for name in chosen_models(store, options.models)]
    digests = {card.name: card.sha256 for card in cards}
    for name in options.full:
        if name not in digests:
            message = f"--full {name}: it is not among the models measured: {', '.join(digests)}"
            raise BenchError(message)
    session_id = new_session_id()
    if options.resume:
        folder = options.results / read_machine().name
        session_id = session_of(rows_here(options.results), str(folder), quick=options.quick)
    errors.print(f"session {session_id}; Ctrl-C, then --resume, goes on with it", highlight=False)
    quick = options.quick

    def rows() -> list[Row]:
        return [row for row in rows_here(options.results) if row.run_id == session_id]

    with progress_bar(errors) as progress:
        session = Everything(
            target=Target(models_dir(), device=options.device),
            dataset=chosen_dataset(options, progress),
            recorder=new_recorder(options, session_id),
            open_model=lambda stored: open_model(stored, options.device, 1),
            progress=progress,
            quick=quick,
            rows=rows,
            named=options.full,
            quick_latency=QUICK_PLAN if quick else None,
            lengths=(lambda _: QUICK_LENGTHS) if quick else lengths_for,
        )
        outcome = run_stages(
            stages_of(session, cards),
            digests,
            rows,
            lambda line: errors.print(line, highlight=False, soft_wrap=True),
        )
    if not outcome.interrupted:
        reports = prepare(read_results(options.results), options.results)
        for path in write_report(reports, options.output):
            errors.print(f"wrote {path}", highlight=False, soft_wrap=True)
    measured = list(dict.fromkeys(name for names in outcome.measured.values() for name in names))
    whole = RunOutcome(measured, outcome.failed, outcome.interrupted)
    return conclude(whole, errors, options)
