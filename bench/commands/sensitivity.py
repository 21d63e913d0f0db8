"""Test the compare gate: missed slowdowns, missed losses of accuracy, false alarms."""

from dataclasses import asdict
from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import chosen_dataset, model_of, new_recorder, opener
from bench.commands.output import progress_bar
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
@options.rounds("Windows of load on each side.", 40)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Repeats of the unchanged baseline.",
)
@options.positive_seconds("Length of one window.", 0.9)
@shared.data
@shared.device
@options.results
@shared.as_json
def command(
    model: str | None,
    rounds: int,
    repeats: int,
    seconds: float,
    data: str | None,
    device: str,
    results: Path,
    as_json: bool,
) -> int:
    """Measure with one model (default: the server's own default, else the first)."""
    store = ModelStore(models_dir())
    name = model_of(store, model, device)  # type: ignore[arg-type]
    digest = store.card(name).sha256
    recorder = new_recorder(results)
    plan = SensitivityPlan(rounds=rounds, repeats=repeats, seconds=seconds)
    with progress_bar() as progress:
        dataset = chosen_dataset(data, progress)
        bench = Bench(
            target=Target(store.root, device=device),
            dataset=dataset,
            open_model=opener(device),
            machine=read_machine(),
            versions=read_versions(),
            rows=home_dir() / "tmp" / "sensitivity",
        )
        measurement = measure_sensitivity(bench, name, plan, progress)
    recorder.add(name, digest, reference_to(dataset), measurement)
    if as_json:
        print_json({**asdict(measurement), "holds": measurement.holds})
    console = errors() if as_json else output()
    for line in told(measurement):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return OK if measurement.holds else FAILED
