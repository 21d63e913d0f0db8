"""``python -m bench``: measure, report, list. See ``--help``."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape

from bench.arguments import build_parser
from bench.console import progress_bar, results_table, set_up_logging
from bench.fingerprint import read_machine, read_versions
from bench.generator import LoadPlan
from bench.latency import QUICK_PLAN, Executor, LatencyPlan
from bench.over_http import Target, load_models, verify_models
from bench.progress import Progress, labelled
from bench.report import prepare, stale_files, write_report
from bench.resources import measure_resources
from bench.results import Recorder, read_results
from bench.robustness import measure_robustness
from bench.run import RunOutcome, measure_models
from cifar10.dataset import Dataset, load_dataset
from cifar10.environment import models_dir
from cifar10.errors import BenchError, Cifar10Error
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore, StoredModel

OK: Final = 0
ERROR: Final = 1
MODEL_FAILED: Final = 3
INTERRUPTED: Final = 130

_PIPE_WIDTH: Final = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = build_parser().parse_args(arguments)
    errors = Console(stderr=True)
    set_up_logging(errors)
    commands = {"run": _run, "load": _load, "verify": _verify, "report": _report, "ls": _ls}
    commands |= {"robustness": _robustness, "resources": _resources}
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
    names = _names(store, options.models)
    plan = QUICK_PLAN if options.quick else LatencyPlan(threads=options.threads)
    with progress_bar(errors) as progress:
        outcome = measure_models(
            store,
            names,
            _dataset(options, progress),
            _recorder(options),
            open_model=lambda stored: _open(stored, options.device, options.threads),
            plan=plan,
            quick=options.quick,
            progress=progress,
        )
    return _conclude(outcome, errors)


def _load(options: argparse.Namespace, errors: Console) -> int:
    plan = LoadPlan(options.users, options.seconds, options.warm_up)
    with progress_bar(errors) as progress:
        outcome = load_models(
            Target(models_dir(), options.url, options.device),
            _served_names(options),
            _dataset(options, progress),
            _recorder(options),
            plan,
            progress,
        )
    return _conclude(outcome, errors)


def _verify(options: argparse.Namespace, errors: Console) -> int:
    with progress_bar(errors) as progress:
        outcome = verify_models(
            Target(models_dir(), options.url, options.device),
            _served_names(options),
            _dataset(options, progress),
            _recorder(options),
            lambda stored: _open(stored, options.device, 1),
            progress,
        )
    return _conclude(outcome, errors)


def _robustness(options: argparse.Namespace, errors: Console) -> int:
    store = ModelStore(models_dir())
    names = _names(store, options.models)
    with progress_bar(errors) as progress:
        outcome = measure_robustness(
            store,
            names,
            _dataset(options, progress),
            _recorder(options),
            open_model=lambda stored: _open(stored, options.device, 1),
            images=options.images,
            progress=progress,
        )
    return _conclude(outcome, errors)


def _resources(options: argparse.Namespace, errors: Console) -> int:
    store = ModelStore(models_dir())
    names = _names(store, options.models)
    with progress_bar(errors) as progress:
        outcome = measure_resources(
            store,
            names,
            _recorder(options),
            open_model=lambda stored: _open(stored, options.device, 1),
            device=options.device,
            progress=progress,
        )
    return _conclude(outcome, errors)


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
    found = read_results(options.results)
    if not found:
        message = f"there are no rows in {options.results}. Measure first: python -m bench run"
        raise BenchError(message)
    output = Console()
    if not output.is_terminal:  # a pipe has no width: let nothing be cut
        output = Console(width=_PIPE_WIDTH)
    output.print(results_table(found))
    return OK


def _names(store: ModelStore, wanted: Sequence[str] | None) -> list[str]:
    """The models to measure: those wanted, each of which must be there, or all."""
    if wanted:
        for name in wanted:
            store.card(name)
        return list(dict.fromkeys(wanted))
    names = store.names()
    if not names:
        message = (
            f"there is no model in {store.root}. "
            "Make one: python -m training train simple_cnn && python -m export simple_cnn"
        )
        raise BenchError(message)
    return names


def _served_names(options: argparse.Namespace) -> Sequence[str | None]:
    if options.url is not None:
        return [options.model]
    return _names(ModelStore(models_dir()), [options.model] if options.model else None)


def _dataset(options: argparse.Namespace, progress: Progress) -> Dataset:
    told = labelled("reading the dataset", progress)
    return load_dataset(options.data, progress=lambda done, total: told("", done, total))


def _recorder(options: argparse.Namespace) -> Recorder:
    quick = bool(getattr(options, "quick", False))
    return Recorder(options.results, read_machine(), read_versions(), quick=quick)


def _open(stored: StoredModel, device: str, threads: int) -> Executor:
    options = PredictorOptions(device=device, threads=threads)  # type: ignore[arg-type]
    predictor = Predictor(stored.onnx, options)
    predictor.check_golden(stored.card.golden)
    return predictor


def _conclude(outcome: RunOutcome, errors: Console) -> int:
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
