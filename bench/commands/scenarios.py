"""Run MLPerf's scenarios, scaled down, in process and over HTTP."""

from dataclasses import replace
from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import (
    chosen_dataset,
    chosen_models,
    new_recorder,
    opener,
    served_models,
)
from bench.commands.output import conclude, progress_bar
from bench.measure.survey import merged
from bench.scenarios.rules import QUICK_SCENARIO_PLAN, ScenarioPlan
from bench.scenarios.run import scenarios_in_process, scenarios_over_http
from bench.serving.target import Target
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench scenarios                         every model, in process and over HTTP
cifar10 bench scenarios simple_cnn --quick --in-process
cifar10 bench scenarios --http --url http://server:3000 --bound-ms 10
""",
    options.EXIT_CODES,
)
@shared.models
@options.url
@shared.data
@shared.device
@options.quick
@click.option("--in-process", is_flag=True, help="Only in process.")
@click.option("--http", is_flag=True, help="Only over HTTP.")
@click.option(
    "--bound-ms",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    help="Bound on Server's p99; 15 is MLPerf's.",
)
@options.positive_seconds("Measured duration of each scenario (default: 5).")
@options.results
@shared.as_json
def command(
    models: tuple[str, ...],
    url: str | None,
    data: str | None,
    device: str,
    quick: bool,
    in_process: bool,
    http: bool,
    bound_ms: float,
    seconds: float | None,
    results: Path,
    as_json: bool,
) -> int:
    """Run the scenarios on each model."""
    if in_process and (http or url is not None):
        message = "--in-process measures no server: leave out --http and --url"
        raise click.UsageError(message)
    plan = QUICK_SCENARIO_PLAN if quick else ScenarioPlan()
    plan = replace(plan, seconds=seconds or plan.seconds, bound_ms=bound_ms)
    outcomes = []
    with progress_bar() as progress:
        dataset, recorder = chosen_dataset(data, progress), new_recorder(results, quick=quick)
        if not http and url is None:
            store = ModelStore(models_dir())
            names = chosen_models(store, models)
            outcomes.append(
                scenarios_in_process(
                    store, names, dataset, recorder, opener(device), plan, progress
                )
            )
        if not in_process and not any(done.interrupted for done in outcomes):
            target = Target(models_dir(), url, device)
            served = served_models(models, url)
            outcomes.append(scenarios_over_http(target, served, dataset, recorder, plan, progress))
    return conclude(merged(outcomes), recorder, as_json=as_json)
