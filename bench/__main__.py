"""``python -m bench``: measure, report, list. See ``--help``."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from bench.agreement import AgreementPlan
from bench.agreement_runs import agree_on_models
from bench.arguments import build_parser
from bench.bulk import QUICK_BULK_PLAN, BulkPlan, measure_bulk, measured_in
from bench.ceiling import measure_ceilings
from bench.chaos import TRIALS, hurt_service, model_of, trials_in
from bench.chaos_trial import ChaosPlan
from bench.choices import (
    chosen_dataset,
    chosen_models,
    each_served_model,
    new_recorder,
    open_model,
    served_models,
)
from bench.compare import Tolerance, compare
from bench.console import progress_bar, results_table, set_up_logging
from bench.everything import new_session_id, run_stages, session_of
from bench.fingerprint import read_machine, read_versions
from bench.generator import LoadPlan
from bench.latency import QUICK_PLAN, LatencyPlan
from bench.listing import (
    as_json,
    comparison_table,
    listing_record,
    row_record,
    rows_about,
    rows_table,
    side_of,
)
from bench.over_http import Target, load_models, reference_to, verify_models
from bench.peers.measuring import QUICK_PEER_PLAN, PeerPlan
from bench.peers.rounds import (
    choose_peers,
    done_in,
    make_subject,
    measure_rounds,
    new_comparison_id,
    session_of_file,
)
from bench.report import prepare, stale_files, write_report
from bench.resources import measure_resources
from bench.results import MachineResults, Row, read_results
from bench.resumable import Session, new_session, newest_session
from bench.robustness import measure_robustness
from bench.run import RunOutcome, measure_models
from bench.scenario_runs import (
    merged,
    scenario_plan,
    scenarios_in_process,
    scenarios_over_http,
)
from bench.scenarios import QUICK_SCENARIO_PLAN, ScenarioPlan
from bench.sensitivity import Bench, SensitivityPlan, measure_sensitivity
from bench.sensitivity_section import told
from bench.stages import Everything, stages_of
from cifar10.environment import PROJECT_ROOT, models_dir
from cifar10.errors import BenchError, Cifar10Error
from cifar10.store import ModelStore

OK: Final = 0
ERROR: Final = 1
MODEL_FAILED: Final = 3
REGRESSION: Final = 4
INTERRUPTED: Final = 130

_PIPE_WIDTH: Final = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = build_parser().parse_args(arguments)
    errors = Console(stderr=True)
    set_up_logging(errors)
    commands = {"run": _run, "load": _load, "verify": _verify, "report": _report, "ls": _ls}
    commands |= {
        "scenarios": _scenarios,
        "compare": _compare,
        "show": _show,
        "agree": _agree,
        "all": _all,
        "robustness": _robustness,
        "resources": _resources,
        "sensitivity": _sensitivity,
        "chaos": _chaos,
        "peers": _peers,
        "bulk": _bulk,
    }
    try:
        return commands[options.command](options, errors)
    except Cifar10Error as error:
        errors.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return ERROR
    except KeyboardInterrupt:
        errors.print("interrupted")
        return INTERRUPTED


def _run(options: argparse.Namespace, errors: Console) -> int:
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
    return _conclude(outcome, errors, options)


def _load(options: argparse.Namespace, errors: Console) -> int:
    if options.ceiling:
        return _ceiling(options, errors)
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
    return _conclude(outcome, errors, options)


def _all(options: argparse.Namespace, errors: Console) -> int:
    store = ModelStore(models_dir())
    digests = {name: store.card(name).sha256 for name in chosen_models(store, options.models)}
    session_id = new_session_id()
    if options.resume:
        folder = options.results / read_machine().name
        session_id = session_of(_rows_here(options.results), str(folder), quick=options.quick)
    errors.print(f"session {session_id}; Ctrl-C, then --resume, goes on with it", highlight=False)
    quick = options.quick
    with progress_bar(errors) as progress:
        session = Everything(
            target=Target(models_dir(), device=options.device),
            dataset=chosen_dataset(options, progress),
            recorder=new_recorder(options, session_id),
            open_model=lambda stored: open_model(stored, options.device, 1),
            progress=progress,
            quick=quick,
            latency=QUICK_PLAN if quick else LatencyPlan(threads=1),
            scenarios=QUICK_SCENARIO_PLAN if quick else ScenarioPlan(),
            load=LoadPlan(seconds=3, warm_up_seconds=1) if quick else LoadPlan(),
            agreement=AgreementPlan(1, 1, 3) if quick else AgreementPlan(),
        )
        outcome = run_stages(
            stages_of(session),
            digests,
            lambda: [row for row in _rows_here(options.results) if row.run_id == session_id],
            lambda line: errors.print(line, highlight=False, soft_wrap=True),
        )
    if not outcome.interrupted:
        reports = prepare(read_results(options.results), options.results)
        for path in write_report(reports, options.output):
            errors.print(f"wrote {path}", highlight=False, soft_wrap=True)
    measured = list(dict.fromkeys(name for names in outcome.measured.values() for name in names))
    whole = RunOutcome(measured, outcome.failed, outcome.interrupted)
    return _conclude(whole, errors, options)


def _ceiling(options: argparse.Namespace, errors: Console) -> int:
    with progress_bar(errors) as progress:
        images = chosen_dataset(options, progress).test.images
        found = measure_ceilings(
            images, users=options.users, processes=options.processes, progress=progress
        )
    if options.json:
        print(as_json([asdict(ceiling) for ceiling in found]))  # noqa: T201 - for a program
        return OK
    for ceiling in found:
        _output().print(
            f"{ceiling.generator}: {ceiling.rate_per_s:,.0f} requests/s, p50 {ceiling.p50_ms} ms, "
            f"{ceiling.cpu_share:.0%} of a core in each of {ceiling.processes} process(es)"
        )
    return OK


def _agree(options: argparse.Namespace, errors: Console) -> int:
    plan = AgreementPlan(rounds=options.rounds, seconds=options.seconds)
    target = Target(models_dir(), options.url, options.device)
    with progress_bar(errors) as progress:
        outcome = agree_on_models(
            target,
            each_served_model(options),
            chosen_dataset(options, progress),
            new_recorder(options),
            plan,
            progress,
        )
    return _conclude(outcome, errors, options)


def _verify(options: argparse.Namespace, errors: Console) -> int:
    with progress_bar(errors) as progress:
        outcome = verify_models(
            Target(models_dir(), options.url, options.device),
            served_models(options),
            chosen_dataset(options, progress),
            new_recorder(options),
            lambda stored: open_model(stored, options.device, 1),
            progress,
        )
    return _conclude(outcome, errors, options)


def _scenarios(options: argparse.Namespace, errors: Console) -> int:
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
    return _conclude(merged(outcomes), errors, options)


def _robustness(options: argparse.Namespace, errors: Console) -> int:
    store = ModelStore(models_dir())
    names = chosen_models(store, options.models)
    with progress_bar(errors) as progress:
        outcome = measure_robustness(
            store,
            names,
            chosen_dataset(options, progress),
            new_recorder(options),
            open_model=lambda stored: open_model(stored, options.device, 1),
            images=options.images,
            progress=progress,
        )
    return _conclude(outcome, errors, options)


def _resources(options: argparse.Namespace, errors: Console) -> int:
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
    return _conclude(outcome, errors, options)


def _peers(options: argparse.Namespace, errors: Console) -> int:
    store = ModelStore(models_dir())
    plan = QUICK_PEER_PLAN if options.quick else PeerPlan()
    plan = replace(plan, rounds=options.rounds or plan.rounds)
    (name,) = chosen_models(store, [options.model])
    digest = store.card(name).sha256
    session_id, done = new_comparison_id(), set[tuple[str, int]]()
    if options.resume:
        rows = _rows_here(options.results)
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
    return _conclude(outcome, errors, options)


def _bulk(options: argparse.Namespace, errors: Console) -> int:
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
    return _conclude(outcome, errors, options)


def _sensitivity(options: argparse.Namespace, errors: Console) -> int:
    store = ModelStore(models_dir())
    names = chosen_models(store, [options.model] if options.model else None)
    if len(names) > 1:
        message = f"name one with --model: {', '.join(names)}"
        raise BenchError(message)
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
        measurement = measure_sensitivity(bench, names[0], plan, progress)
    recorder.add(names[0], store.card(names[0]).sha256, reference_to(dataset), measurement)
    if options.json:
        record = {**asdict(measurement), "holds": measurement.holds}
        print(as_json(record))  # noqa: T201 - as above
    for line in told(measurement):
        errors.print(line, highlight=False, soft_wrap=True, markup=False)
    return OK if measurement.holds else MODEL_FAILED


def _chaos(options: argparse.Namespace, errors: Console) -> int:
    if options.quick:
        plan = ChaosPlan(options.workers, 1, 1, 700, 6.0, large_images=2, large_rounds=1)
    else:
        plan = ChaosPlan(options.workers, inputs=options.inputs, soak_seconds=options.minutes * 60)
    session = _session("chaos", options, errors)
    model = model_of(ModelStore(models_dir()), options.model)
    done = trials_in(session.rows, model, plan.workers)
    trials = [name for name in options.trials or TRIALS if name not in done]
    if not trials:
        return _conclude(RunOutcome(), errors, options)
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
    return _conclude(outcome, errors, options)


def _report(options: argparse.Namespace, errors: Console) -> int:
    reports = prepare(read_results(options.results), options.results)
    output = Console()
    if not options.check:
        for path in write_report(reports, options.output):
            output.print(f"wrote {path}", highlight=False, soft_wrap=True)
        return OK
    stale = stale_files(reports, options.output)
    for path in stale:
        errors.print(f"stale: {path}. Run: python -m bench report", soft_wrap=True)
    return ERROR if stale else OK


def _ls(options: argparse.Namespace, errors: Console) -> int:
    found = _found(options)
    if options.json:
        print(as_json(listing_record(found)))  # noqa: T201 - for a program, not for a person
    else:
        _output().print(results_table(found))
    return OK


def _show(options: argparse.Namespace, errors: Console) -> int:
    rows = [row for machine in _found(options) for row in machine.rows]
    about = rows_about(rows, options.name, options.results)
    if options.json:
        print(as_json([row_record(row, whole=True) for row in about]))  # noqa: T201 - as above
    else:
        _output().print(rows_table(about))
    return OK


def _compare(options: argparse.Namespace, errors: Console) -> int:
    before, after = (side_of(side, options.results) for side in (options.before, options.after))
    tolerance = Tolerance(options.tolerance / 100, options.accuracy_tolerance)
    comparison = compare(before, after, tolerance)
    if not comparison.findings and not comparison.failures:
        message = "the two sides have nothing in common: " + "; ".join(
            (*comparison.notes, *comparison.only_one_side)
        )
        raise BenchError(message)
    if options.json:
        record = {**asdict(comparison), "regression": comparison.is_regression}
        print(as_json(record))  # noqa: T201 - as above
    else:
        output = _output()
        output.print(comparison_table(comparison))
        for line in (*comparison.failures, *comparison.only_one_side, *comparison.notes):
            output.print(escape(line), highlight=False, soft_wrap=True)
        output.print("regression" if comparison.is_regression else "no regression")
    return REGRESSION if comparison.is_regression else OK


def _session(command: str, options: argparse.Namespace, errors: Console) -> Session:
    """A new one, or the one to go on with."""
    session = new_session(command)
    if options.resume:
        session = newest_session(command, _rows_here(options.results), quick=options.quick)
    errors.print(
        f"session {session.run_id}; Ctrl-C, then --resume, goes on with it", highlight=False
    )
    return session


def _rows_here(results: Path) -> list[Row]:
    """Of this machine."""
    name = read_machine().name
    return [row for here in read_results(results) if here.name == name for row in here.rows]


def _found(options: argparse.Namespace) -> list[MachineResults]:
    found = read_results(options.results)
    if not found:
        message = f"there are no rows in {options.results}. Measure first: python -m bench run"
        raise BenchError(message)
    return found


def _output() -> Console:
    output = Console()
    return output if output.is_terminal else Console(width=_PIPE_WIDTH)  # a pipe cuts nothing


def _conclude(outcome: RunOutcome, errors: Console, options: argparse.Namespace) -> int:
    if options.json:
        print(as_json(asdict(outcome)))  # noqa: T201 - as above
    for model, reason in outcome.failed.items():
        errors.print(f"[red]{escape(model)}[/] {escape(reason)}", highlight=False, soft_wrap=True)
    if outcome.measured:
        errors.print(f"measured: {', '.join(outcome.measured)}", highlight=False, soft_wrap=True)
    if outcome.interrupted:
        errors.print("interrupted: what was measured is kept")
        return INTERRUPTED
    return MODEL_FAILED if outcome.failed else OK


if __name__ == "__main__":
    sys.exit(main())
