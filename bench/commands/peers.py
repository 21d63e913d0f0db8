"""Measure this service beside other servers, one worker on one core each."""

from dataclasses import replace
from pathlib import Path

import click

from bench.commands import options
from bench.commands.choices import chosen_dataset, model_of, new_recorder, opener
from bench.commands.output import conclude, progress_bar, session_for
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
cifar10 bench peers --quick                     a second each, two rounds: to see that all works

Peers: see bench/peers/catalogue.py. Each gets an environment of its own, made once, under
CIFAR10_CACHE/peers; one that cannot be installed or run is a row that says why.
""",
    options.EXIT_CODES,
)
@click.argument("peers", nargs=-1, metavar="[PEER]...")
@click.option(
    "--model",
    type=shared.ModelName(),
    help="The model that all serve (default: the service's own default on a CPU).",
)
@options.rounds("Interleaved rounds (default: 5, quick: 2).")
@options.quick
@options.resume
@shared.data
@options.results
@shared.as_json
def command(
    peers: tuple[str, ...],
    model: str | None,
    rounds: int | None,
    quick: bool,
    resume: bool,
    data: str | None,
    results: Path,
    as_json: bool,
) -> int:
    """Measure the peers named, or all."""
    chosen = choose_peers(peers or None)
    store = ModelStore(models_dir())
    plan = QUICK_PEER_PLAN if quick else PeerPlan()
    plan = replace(plan, rounds=rounds or plan.rounds)
    name = model_of(store, model, "cpu")
    digest = store.card(name).sha256
    session = session_for("peers", results, quick=quick, resume=resume, digest=digest)
    with progress_bar() as progress:
        dataset = chosen_dataset(data, progress)
        recorder = new_recorder(results, quick=quick, session_id=session.run_id)
        outcome = measure_rounds(
            chosen,
            make_subject(store, name, dataset, plan, opener("cpu")),
            digest,
            reference_to(dataset),
            recorder,
            plan,
            done=done_in(session.rows),
            progress=progress,
        )
    return conclude(outcome, recorder, as_json=as_json)
