"""Run MLPerf's scenarios, scaled down, in process and over HTTP."""

from dataclasses import replace

import click

from bench.commands import options
from bench.commands.choices import Choices, chosen_models, measuring, served_models
from bench.commands.output import conclude
from bench.measure.survey import merged
from bench.scenarios.rules import QUICK_SCENARIO_PLAN, ScenarioPlan
from bench.scenarios.run import scenarios_in_process, scenarios_over_http
from bench.serving.target import Target
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir


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
@measuring(quick=True)
def command(
    choices: Choices,
    models: tuple[str, ...],
    url: str | None,
    in_process: bool,
    http: bool,
    bound_ms: float,
    seconds: float | None,
) -> int:
    """Run the scenarios on each model."""
    if in_process and (http or url is not None):
        message = "--in-process measures no server: leave out --http and --url"
        raise click.UsageError(message)
    plan = QUICK_SCENARIO_PLAN if choices.quick else ScenarioPlan()
    plan = replace(plan, seconds=seconds or plan.seconds, bound_ms=bound_ms)
    names = served_models(models, url)
    outcomes = []
    with choices.setup(names) as setup:
        if not http and url is None:
            outcomes.append(scenarios_in_process(setup, chosen_models(models), plan))
        if not in_process and not any(done.interrupted for done in outcomes):
            target = Target(models_dir(), url, choices.device)
            outcomes.append(scenarios_over_http(setup, target, names, plan))
    return conclude(merged(outcomes), setup.recorder, as_json=choices.as_json)
