"""The commands that measure: each takes its options to one kind of measurement."""

import argparse
from dataclasses import asdict, replace

from rich.console import Console

from bench.chaos.run import TRIALS, hurt_service, trials_in
from bench.chaos.trial import ChaosPlan
from bench.commands.choices import (
    chosen_dataset,
    chosen_models,
    each_served_model,
    model_of,
    new_recorder,
    open_model,
    served_models,
)
from bench.commands.console import progress_bar
from bench.commands.listing import (
    as_json,
)
from bench.commands.outcomes import MODEL_FAILED, OK, conclude, rows_here, standard_output
from bench.compare.selftest import Bench, SensitivityPlan, measure_sensitivity
from bench.load.locust import LoadPlan
from bench.measure.damage import measure_robustness, measure_sendings
from bench.measure.in_process import RunOutcome, measure_models
from bench.measure.latency import QUICK_PLAN, LatencyPlan
from bench.measure.resources import measure_resources
from bench.peers.ceiling import measure_ceilings
from bench.peers.measuring import QUICK_PEER_PLAN, PeerPlan
from bench.peers.questions import encode_jpeg
from bench.peers.rounds import (
    choose_peers,
    done_in,
    make_subject,
    measure_rounds,
    new_comparison_id,
    session_of_file,
)
from bench.report.sections.selftest import told
from bench.rows.machine import read_machine, read_versions
from bench.scenarios.run import (
    merged,
    scenario_plan,
    scenarios_in_process,
    scenarios_over_http,
)
from bench.serving.bulk import QUICK_BULK_PLAN, BulkPlan, measure_bulk, measured_in
from bench.serving.target import Target, load_models, reference_to, verify_models
from bench.serving.tuning import (
    QUICK_SETTINGS_PLAN,
    SENT_IMAGES,
    SettingsPlan,
    choices,
    measure_settings,
)
from bench.session.resumable import Session, new_session, newest_session
from cifar10.environment import PROJECT_ROOT, models_dir
from cifar10.predictor import Device
from cifar10.store import ModelStore


def run(options: argparse.Namespace, errors: Console) -> int:
    """Cost, accuracy, latency and throughput, in process."""
    store = ModelStore(models_dir())
    names = chosen_models(store, options.models)
    plan = QUICK_PLAN if options.quick else LatencyPlan(threads=options.threads)
    with progress_bar(errors) as progress:
        outcome = measure_models(
            store,
            names,
            chosen_dataset(options, progress),
            new_recorder(options),
            open_model=lambda stored: open_model(stored, options.device, options.threads),
            plan=plan,
            quick=options.quick,
            progress=progress,
        )
    return conclude(outcome, errors, options)


def load(options: argparse.Namespace, errors: Console) -> int:
    """The service under Locust."""
    if options.ceiling:
        return ceiling(options, errors)
    plan = LoadPlan(
        options.users,
        options.seconds,
        options.warm_up,
        processes=options.processes,
        rate_per_s=options.rate,
        shape=options.shape,
        html=options.html,
    )
    with progress_bar(errors) as progress:
        outcome = load_models(
            Target(models_dir(), options.url, options.device),
            served_models(options),
            chosen_dataset(options, progress),
            new_recorder(options),
            plan,
            progress,
        )
    return conclude(outcome, errors, options)


def ceiling(options: argparse.Namespace, errors: Console) -> int:
    """What the load generators themselves can do."""
    with progress_bar(errors) as progress:
        images = chosen_dataset(options, progress).test.images
        found = measure_ceilings(
            images, users=options.users, processes=options.processes, progress=progress
        )
    if options.json:
        print(as_json([asdict(ceiling) for ceiling in found]))  # noqa: T201 - for a program
        return OK
    for ceiling in found:
        standard_output().print(
            f"{ceiling.generator}: {ceiling.rate_per_s:,.0f} requests/s, p50 {ceiling.p50_ms} ms, "
            f"{ceiling.cpu_share:.0%} of a core in each of {ceiling.processes} process(es)"
        )
    return OK


def verify(options: argparse.Namespace, errors: Console) -> int:
    """Every test image through the server."""
    with progress_bar(errors) as progress:
        outcome = verify_models(
            Target(models_dir(), options.url, options.device),
            served_models(options),
            chosen_dataset(options, progress),
            new_recorder(options),
            lambda stored: open_model(stored, options.device, 1),
            progress,
        )
    return conclude(outcome, errors, options)


def scenarios(options: argparse.Namespace, errors: Console) -> int:
    """MLPerf's scenarios."""
    plan = scenario_plan(options)
    outcomes = []
    with progress_bar(errors) as progress:
        dataset, recorder = chosen_dataset(options, progress), new_recorder(options)
        if not options.http and options.url is None:
            store = ModelStore(models_dir())
            names = chosen_models(store, options.models)
            outcomes.append(
                scenarios_in_process(
                    store,
                    names,
                    dataset,
                    recorder,
                    lambda stored: open_model(stored, options.device, 1),
                    plan,
                    progress,
                )
            )
        if not options.in_process and not any(done.interrupted for done in outcomes):
            target = Target(models_dir(), options.url, options.device)
            served = each_served_model(options)
            outcomes.append(scenarios_over_http(target, served, dataset, recorder, plan, progress))
    return conclude(merged(outcomes), errors, options)


def robustness(options: argparse.Namespace, errors: Console) -> int:
    """Accuracy on damaged copies."""
    store = ModelStore(models_dir())
    names = chosen_models(store, options.models)
    with progress_bar(errors) as progress:
        dataset, recorder = chosen_dataset(options, progress), new_recorder(options)
        outcomes: list[RunOutcome] = []
        for measure in (measure_robustness, measure_sendings):
            if not any(done.interrupted for done in outcomes):
                found = measure(
                    store,
                    names,
                    dataset,
                    recorder,
                    open_model=lambda stored: open_model(stored, options.device, 1),
                    images=options.images,
                    progress=progress,
                )
                outcomes.append(found)
    return conclude(merged(outcomes), errors, options)


def resources(options: argparse.Namespace, errors: Console) -> int:
    """Memory, start-up, energy."""
    store = ModelStore(models_dir())
    names = chosen_models(store, options.models)
    with progress_bar(errors) as progress:
        outcome = measure_resources(
            store,
            names,
            new_recorder(options),
            open_model=lambda stored: open_model(stored, options.device, 1),
            progress=progress,
        )
    return conclude(outcome, errors, options)


def peers(options: argparse.Namespace, errors: Console) -> int:
    """This service beside other servers."""
    store = ModelStore(models_dir())
    plan = QUICK_PEER_PLAN if options.quick else PeerPlan()
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    (name,) = chosen_models(store, [options.model])
    digest = store.card(name).sha256
    session_id, done = new_comparison_id(), set[tuple[str, int]]()
    if options.resume:
        rows = rows_here(options.results)
        session_id = session_of_file(rows, digest, quick=options.quick)
        done = done_in(rows, session_id)
    errors.print(f"session {session_id}; Ctrl-C, then --resume, goes on with it", highlight=False)
    with progress_bar(errors) as progress:
        dataset = chosen_dataset(options, progress)
        outcome = measure_rounds(
            choose_peers(options.peers),
            make_subject(store, name, dataset, plan, lambda one: open_model(one, "cpu", 1)),
            digest,
            reference_to(dataset),
            new_recorder(options, session_id),
            plan,
            done=done,
            progress=progress,
        )
    return conclude(outcome, errors, options)


def bulk(options: argparse.Namespace, errors: Console) -> int:
    """Many images in one request."""
    store = ModelStore(models_dir())
    names = chosen_models(store, options.models)
    plan = QUICK_BULK_PLAN if options.quick else BulkPlan()
    plan = replace(
        plan,
        images=options.images,
        rounds=options.rounds or plan.rounds,
        seconds=options.seconds or plan.seconds,
    )
    session = _session("bulk", options, errors)
    done = measured_in(session.rows)
    names = [name for name in names if (name, store.card(name).sha256) not in done]
    with progress_bar(errors) as progress:
        outcome = measure_bulk(
            store,
            names,
            chosen_dataset(options, progress),
            new_recorder(options, session.run_id),
            open_model=lambda stored: open_model(stored, "cpu", 1),
            plan=plan,
            progress=progress,
        )
    return conclude(outcome, errors, options)


def settings(options: argparse.Namespace, errors: Console) -> int:
    """The service with several numbers of workers, threads and images in a batch."""
    store = ModelStore(models_dir())
    device: Device = "cuda" if options.device == "cuda" else "cpu"
    name = model_of(store, options.model, device)
    plan = QUICK_SETTINGS_PLAN if options.quick else SettingsPlan()
    with progress_bar(errors) as progress:
        images = chosen_dataset(options, progress).test.images[:SENT_IMAGES]
        outcome = measure_settings(
            Target(store.root, device=device),
            name,
            store.card(name).sha256,
            [encode_jpeg(image) for image in images],
            new_recorder(options),
            tried=choices(device),
            plan=replace(plan, rounds=options.rounds or plan.rounds),
            progress=progress,
        )
    return conclude(outcome, errors, options)


def sensitivity(options: argparse.Namespace, errors: Console) -> int:
    """Would ``compare`` notice?"""
    store = ModelStore(models_dir())
    name = model_of(store, options.model, options.device)
    digest = store.card(name).sha256
    recorder = new_recorder(options)
    plan = SensitivityPlan(rounds=options.rounds, repeats=options.repeats, seconds=options.seconds)
    with progress_bar(errors) as progress:
        dataset = chosen_dataset(options, progress)
        bench = Bench(
            target=Target(store.root, device=options.device),
            dataset=dataset,
            open_model=lambda stored: open_model(stored, options.device, 1),
            machine=read_machine(),
            versions=read_versions(),
            rows=PROJECT_ROOT / "tmp" / "sensitivity",
        )
        measurement = measure_sensitivity(bench, name, plan, progress)
    recorder.add(name, digest, reference_to(dataset), measurement)
    if options.json:
        record = {**asdict(measurement), "holds": measurement.holds}
        print(as_json(record))  # noqa: T201 - as above
    for line in told(measurement):
        errors.print(line, highlight=False, soft_wrap=True, markup=False)
    return OK if measurement.holds else MODEL_FAILED


def chaos(options: argparse.Namespace, errors: Console) -> int:
    """The service hurt."""
    if options.quick:
        plan = ChaosPlan(options.workers, 1, 1, 700, 6.0, large_images=2, large_rounds=1)
    else:
        plan = ChaosPlan(options.workers, inputs=options.inputs, soak_seconds=options.minutes * 60)
    session = _session("chaos", options, errors)
    model = model_of(ModelStore(models_dir()), options.model, options.device)
    done = trials_in(session.rows, model, plan.workers)
    trials = [name for name in options.trials or TRIALS if name not in done]
    if not trials:
        return conclude(RunOutcome(), errors, options)
    with progress_bar(errors) as progress:
        outcome = hurt_service(
            models_dir(),
            model,
            trials,
            new_recorder(options, session.run_id),
            plan,
            device=options.device,
            progress=progress,
        )
    return conclude(outcome, errors, options)


def _session(command: str, options: argparse.Namespace, errors: Console) -> Session:
    """A new one, or the one to go on with."""
    session = new_session(command)
    if options.resume:
        session = newest_session(command, rows_here(options.results), quick=options.quick)
    errors.print(
        f"session {session.run_id}; Ctrl-C, then --resume, goes on with it", highlight=False
    )
    return session
