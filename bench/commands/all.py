"""Measure every model in every way, then render the report; resumable."""

from pathlib import Path
from typing import Final

import click

from bench.commands import options
from bench.commands.choices import Choices, chosen_models, measuring
from bench.commands.output import conclude, rows_here, say
from bench.load.locust import LoadPlan
from bench.measure.latency import QUICK_PLAN
from bench.measure.survey import RunOutcome
from bench.report.build import prepare, write_report
from bench.rows.files import read_results
from bench.rows.row import Row
from bench.rows.selection import released_digests
from bench.scenarios.rules import QUICK_SCENARIO_PLAN
from bench.serving.target import Target
from bench.session.plan import Lengths, lengths_for
from bench.session.resume import run_stages
from bench.session.stages import Everything, stages_of
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.errors import BenchError
from cifar10.store import ModelStore
from cifar10.suggestions import did_you_mean

QUICK_LENGTHS: Final = Lengths(QUICK_SCENARIO_PLAN, LoadPlan(seconds=3, warm_up_seconds=1))


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench all                               every model, then the report
cifar10 bench all --resume                      continue the newest session
cifar10 bench all --full compact_seed1          that one in every way too
cifar10 bench all simple_cnn --quick
""",
    options.EXIT_CODES,
)
@shared.models
@click.option(
    "--full",
    multiple=True,
    type=shared.ModelName(),
    metavar="MODEL",
    help="Run every measurement on this model too (may be repeated).",
)
@options.output_folder
@measuring(quick=True, resume=True)
def command(
    choices: Choices, models: tuple[str, ...], full: tuple[str, ...], output_folder: Path
) -> int:
    """Run all stages, then render the report."""
    store = ModelStore(models_dir())
    cards = [store.card(name) for name in chosen_models(models)]
    digests = {card.name: card.sha256 for card in cards}
    for name in full:
        if name not in digests:
            message = f"--full {name}: it is not among the models measured: {', '.join(digests)}."
            raise BenchError(message + did_you_mean(name, digests))
    session_id, results = choices.session("all").run_id, choices.results

    def rows() -> list[Row]:
        return [row for row in rows_here(results) if row.run_id == session_id]

    with choices.setup(list(digests), session_id=session_id) as setup:
        session = Everything(
            setup,
            Target(models_dir(), device=choices.device),
            quick=choices.quick,
            rows=rows,
            named=full,
            quick_latency=QUICK_PLAN if choices.quick else None,
            lengths=(lambda _: QUICK_LENGTHS) if choices.quick else lengths_for,
        )
        outcome = run_stages(stages_of(session, setup.measurable(cards)), digests, rows, say)
    if not outcome.interrupted:
        reports = prepare(read_results(results), results, released_digests(models_dir()))
        for path in write_report(reports, results, output_folder):
            say(f"wrote {path}")
    measured = list(dict.fromkeys(name for names in outcome.measured.values() for name in names))
    whole = RunOutcome(measured, outcome.failed, outcome.interrupted)
    return conclude(whole, setup.recorder, as_json=choices.as_json)
