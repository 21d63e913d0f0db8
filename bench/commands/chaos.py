"""Inject faults and attacks: killed workers, hostile input, full disks; a soak."""

import click

from bench.chaos.run import TRIALS, check_names, run_trials, trials_in
from bench.chaos.trial import ChaosPlan
from bench.commands import options
from bench.commands.choices import Choices, measuring, model_of
from bench.commands.output import conclude, progress_bar
from bench.measure.survey import RunOutcome
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    f"""\
cifar10 bench chaos                             all trials; the soak alone takes half an hour
cifar10 bench chaos --resume                    continue the newest session
cifar10 bench chaos kill reload bombs large     a few minutes
cifar10 bench chaos slow_readers pipelining trailers upgrades     attacks over sockets
cifar10 bench chaos fuzz --inputs 1000000
cifar10 bench chaos soak --minutes 30

Trials: {", ".join(TRIALS)} (default: all, in that order).
""",
    options.EXIT_CODES,
)
@click.argument("trials", nargs=-1, metavar="[TRIAL]...")
@click.option(
    "--model", type=shared.ModelName(), help="Model to serve (default: the server's own default)."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Number of server workers.",
)
@click.option(
    "--inputs",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Number of hostile inputs.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Duration of the soak.",
)
@measuring(data=False, quick=True, resume=True)
def command(
    choices: Choices,
    trials: tuple[str, ...],
    model: str | None,
    workers: int,
    inputs: int,
    minutes: float,
) -> int:
    """Run the named trials, or all."""
    check_names(trials)
    if choices.quick:
        plan = ChaosPlan.quick(workers)
    else:
        plan = ChaosPlan(workers, inputs=inputs, soak_seconds=minutes * 60)
    session = choices.session("chaos")
    recorder = choices.recorder(session.run_id)
    served = model_of(ModelStore(models_dir()), model, choices.device)
    done = trials_in(session.rows, served, plan.workers)
    left = [name for name in trials or TRIALS if name not in done]
    if not left:
        return conclude(RunOutcome(), recorder, as_json=choices.as_json)
    with progress_bar() as progress:
        outcome = run_trials(
            models_dir(), served, left, recorder, plan, device=choices.device, progress=progress
        )
    return conclude(outcome, recorder, as_json=choices.as_json)
