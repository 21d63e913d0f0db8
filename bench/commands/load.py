"""Measure the service under load from Locust, over HTTP."""

from dataclasses import asdict
from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import Choices, measuring, served_models
from bench.commands.output import conclude, progress_bar
from bench.load.locust import LoadPlan, run_worker
from bench.peers.ceiling import measure_ceilings
from bench.serving.load import IMAGE_COUNT
from bench.serving.target import Target, load_models
from cifar10.commands import options as shared
from cifar10.commands.command import OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import output, print_json
from cifar10.environment import models_dir


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench load                              starts the service for each model in turn
cifar10 bench load simple_cnn --users 32 --seconds 60
cifar10 bench load --url http://server:3000     a service that is already running
cifar10 bench load simple_cnn --html locust.html --processes 2
cifar10 bench load --users 32 --rate 200        an open loop: Poisson arrivals, 200/s
cifar10 bench load --ceiling                    the limits of the load generators
cifar10 bench load --url http://server:3000 --workers-expected 2
cifar10 bench load --worker-of 10.0.0.7         on two other hosts: send for the one above
""",
    options.EXIT_CODES,
)
@shared.models
@options.url
@click.option("--users", type=click.IntRange(min=1), default=16, show_default=True, help="Clients.")
@click.option(
    "--seconds",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Measured time, after the warm-up.",
)
@click.option(
    "--warm-up",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="SECONDS",
    help="Time before it.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=1e9),
    metavar="PER_SECOND",
    help="Requests/s of all users together, an open loop (default: a closed loop at full speed).",
)
@click.option(
    "--shape",
    type=click.Choice(["poisson", "constant"]),
    default="poisson",
    show_default=True,
    help="Arrival process of the open loop.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of Locust processes, one core each.",
)
@click.option(
    "--workers-expected",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Wait for N workers on other hosts, which send in place of this host.",
)
@click.option(
    "--worker-of", metavar="HOST", help="Send for the run with --workers-expected on HOST."
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="File for Locust's own report."
)
@click.option(
    "--ceiling",
    is_flag=True,
    help="Measure the generators against a no-op server instead of a model.",
)
@measuring()
def command(
    choices: Choices,
    models: tuple[str, ...],
    url: str | None,
    users: int,
    seconds: int,
    warm_up: int,
    rate: float | None,
    shape: str,
    processes: int,
    workers_expected: int,
    worker_of: str | None,
    html: Path | None,
    ceiling: bool,
) -> int:
    """Run load against each model's service."""
    if ceiling:
        return _ceilings(choices, users, processes)
    if worker_of is not None:
        with progress_bar() as progress:
            images = choices.dataset(progress).test.images[:IMAGE_COUNT]
        return run_worker(worker_of, images)
    plan = LoadPlan(
        users,
        seconds,
        warm_up,
        processes=processes,
        workers_expected=workers_expected,
        rate_per_s=rate,
        shape=shape,  # type: ignore[arg-type]
        html=html,
    )
    names, target = served_models(models, url), Target(models_dir(), url, choices.device)
    with choices.setup(names) as setup:
        outcome = load_models(setup, target, names, plan)
    return conclude(outcome, setup.recorder, as_json=choices.as_json)


def _ceilings(choices: Choices, users: int, processes: int) -> int:
    with progress_bar() as progress:
        images = choices.dataset(progress).test.images
        found = measure_ceilings(images, users=users, processes=processes, progress=progress)
    if choices.as_json:
        print_json([asdict(ceiling) for ceiling in found])
        return OK
    for ceiling in found:
        output().print(
            f"{ceiling.generator}: {ceiling.request_rate:,.0f} requests/s, p50 {ceiling.p50_ms} "
            f"ms, {ceiling.cpu_share:.0%} of a core in each of {ceiling.processes} process(es)"
        )
    return OK
