"""Test the compare gate: missed slowdowns, missed losses of accuracy, false alarms."""

from dataclasses import asdict

import click

from bench.commands import options
from bench.commands.choices import Choices, measuring, model_of
from bench.compare.selftest import Bench, SensitivityPlan, measure_sensitivity
from bench.measure.survey import reference_to
from bench.report.sections.selftest import told
from bench.rows.machine import read_machine, read_versions
from bench.serving.target import Target
from cifar10.commands import options as shared
from cifar10.commands.command import FAILED, OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import errors, output, print_json
from cifar10.environment import home_dir, models_dir
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench sensitivity                       the server's default model; ten minutes
cifar10 bench sensitivity simple_cnn --rounds 80

The rows of every run stay in tmp/sensitivity, one folder a side:
  cifar10 compare tmp/sensitivity/baseline tmp/sensitivity/slower_server
""",
    options.EXIT_CODES,
)
@click.argument("model", required=False, type=shared.ModelName())
@options.rounds("Load windows on each side.", 40)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Number of repeats of the unchanged baseline.",
)
@options.positive_seconds("Duration of one window.", 0.9)
@measuring()
def command(choices: Choices, model: str | None, rounds: int, repeats: int, seconds: float) -> int:
    """Run the self-test on one model (default: the server's own default, else the first)."""
    name = model_of(ModelStore(models_dir()), model, choices.device)
    plan = SensitivityPlan(rounds=rounds, repeats=repeats, seconds=seconds)
    with choices.setup([name]) as setup:
        bench = Bench(
            target=Target(setup.store.root, device=choices.device),
            dataset=setup.dataset,
            open_model=setup.open_model,
            machine=read_machine(),
            versions=read_versions(),
            rows=home_dir() / "tmp" / "sensitivity",
        )
        measurement = measure_sensitivity(bench, name, plan, setup.progress)
    digest = setup.store.card(name).sha256
    setup.recorder.add(name, digest, reference_to(setup.dataset), measurement)
    if choices.as_json:
        print_json({**asdict(measurement), "holds": measurement.holds})
    console = errors() if choices.as_json else output()
    for line in told(measurement):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return OK if measurement.holds else FAILED
