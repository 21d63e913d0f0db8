"""Compare this service with other servers, one worker on one core each."""

from dataclasses import replace

import click

from bench.commands import options
from bench.commands.choices import Choices, measuring, model_of
from bench.commands.output import conclude
from bench.measure.survey import reference_to
from bench.peers.measuring import QUICK_PEER_PLAN, PeerPlan
from bench.peers.rounds import (
    choose_peers,
    done_in,
    make_subject,
    measure_rounds,
)
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir
from cifar10.store import ModelStore


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench peers                             every peer, five rounds, about half an hour
cifar10 bench peers --resume                    continue the newest session
cifar10 bench peers ours fastapi triton --rounds 3
cifar10 bench peers --quick                     a second each, two rounds: a functional check

Peers: see bench/peers/catalogue.py. Each has its own environment, made once, under
CIFAR10_CACHE/peers; one that cannot be installed or run gets a row that says why.
""",
    options.EXIT_CODES,
)
@click.argument("peers", nargs=-1, metavar="[PEER]...")
@click.option(
    "--model",
    type=shared.ModelName(),
    help="Model that all peers serve (default: the service's own default on a CPU).",
)
@options.rounds("Interleaved rounds (default: 5, quick: 2).")
@measuring(device=False, quick=True, resume=True)
def command(choices: Choices, peers: tuple[str, ...], model: str | None, rounds: int | None) -> int:
    """Measure the named peers, or all."""
    chosen = choose_peers(peers or None)
    store = ModelStore(models_dir())
    plan = QUICK_PEER_PLAN if choices.quick else PeerPlan()
    plan = replace(plan, rounds=rounds or plan.rounds)
    name = model_of(store, model, "cpu")
    digest = store.card(name).sha256
    session = choices.session("peers", digest)
    with choices.setup([name], device="cpu", session_id=session.run_id) as setup:
        outcome = measure_rounds(
            chosen,
            make_subject(store, name, setup.dataset, plan, setup.open_model),
            digest,
            reference_to(setup.dataset),
            setup.recorder,
            plan,
            done=done_in(session.rows),
            progress=setup.progress,
        )
    return conclude(outcome, setup.recorder, as_json=choices.as_json)
