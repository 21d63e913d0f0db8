"""The command line's options, described in one place."""

import argparse
from pathlib import Path
from typing import Final

from bench.commands.help import EXAMPLES, EXIT_CODES
from cifar10.environment import PROJECT_ROOT, results_dir

CHAOS_TRIALS: Final = ("kill", "reload", "fuzz", "bombs", "large", "soak")


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``python -m bench``."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure models and the service; keep raw rows; render the report from them.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = _command(commands, "run", "cost, accuracy, latency and throughput, in process")
    run.add_argument("--models", nargs="+", metavar="NAME", help="only these (default: all)")
    _add_data(run)
    _add_device(run)
    run.add_argument(
        "--threads", type=_positive, default=1, help="inside one operator (default: 1)"
    )
    run.add_argument("--quick", action="store_true", help="1,000 images and few calls")

    load = _command(commands, "load", "the service under load, over HTTP")
    _add_server(load)
    load.add_argument("--users", type=_positive, default=16, help="clients (default: 16)")
    load.add_argument(
        "--seconds", type=_positive, default=20, help="measured time after a warm-up (default: 20)"
    )
    load.add_argument(
        "--warm-up", type=_positive, default=3, metavar="SECONDS", help="before it (default: 3)"
    )

    load.add_argument(
        "--rate",
        type=_rate,
        metavar="PER_SECOND",
        help="requests/s of all users together, an open loop (default: flat out, a closed one)",
    )
    load.add_argument(
        "--shape", choices=("poisson", "constant"), default="poisson", help="of its arrivals"
    )
    load.add_argument(
        "--processes", type=_positive, default=1, help="of Locust (default: 1, one core)"
    )
    load.add_argument("--html", type=Path, metavar="FILE", help="keep Locust's own report there")
    load.add_argument(
        "--ceiling",
        action="store_true",
        help="measure no model: what the generators reach against a server that does nothing",
    )

    verify = _command(commands, "verify", "every test image through the server, against in process")
    _add_server(verify)

    robustness = _command(
        commands, "robustness", "accuracy on damaged copies, and on images as users send them"
    )
    robustness.add_argument("--models", nargs="+", metavar="NAME", help="only these (default: all)")
    robustness.add_argument(
        "--images",
        type=_positive,
        default=2_000,
        help="test images, a seeded choice (default: 2000 of the 10,000)",
    )
    _add_data(robustness)
    _add_device(robustness)

    resources = _command(commands, "resources", "memory, start-up time and energy of each model")
    resources.add_argument("--models", nargs="+", metavar="NAME", help="only these (default: all)")
    _add_device(resources)

    scenarios = _command(
        commands, "scenarios", "MLPerf's scenarios, scaled down, in process and over HTTP"
    )
    _add_models(scenarios)
    scenarios.add_argument("--quick", action="store_true", help="a second each, coarse search")
    via = scenarios.add_mutually_exclusive_group()
    via.add_argument("--in-process", action="store_true", help="only in process")
    via.add_argument("--http", action="store_true", help="only over HTTP")
    scenarios.add_argument(
        "--bound-ms", type=float, default=15.0, help="on Server's p99 (default: 15, MLPerf's)"
    )
    scenarios.add_argument("--seconds", type=float, help="measured, of each (default: 5)")

    whole = _command(
        commands,
        "all",
        "everything on every model, in process and over HTTP, then the report; resumable",
    )
    whole.add_argument("--models", nargs="+", metavar="NAME", help="only these (default: all)")
    whole.add_argument(
        "--full",
        nargs="+",
        default=[],
        metavar="NAME",
        help="measure these in every way, besides those that are worth it (bench/session/plan.py)",
    )
    whole.add_argument("--quick", action="store_true", help="short, to see that all works")
    _add_resume(whole)
    _add_output(whole)
    _add_data(whole)
    _add_device(whole)

    sensitivity = _command(
        commands,
        "sensitivity",
        "would compare notice a slower server or a worse model here, and does it cry wolf",
    )
    sensitivity.add_argument(
        "--model",
        metavar="NAME",
        help="which one (default: the server's own, else the first)",
    )
    sensitivity.add_argument(
        "--rounds", type=_positive, default=40, help="windows of load on each side (default: 40)"
    )
    sensitivity.add_argument(
        "--repeats", type=_positive, default=10, help="of the unchanged baseline (default: 10)"
    )
    sensitivity.add_argument(
        "--seconds", type=float, default=0.9, help="of one window (default: 0.9)"
    )
    _add_data(sensitivity)
    _add_device(sensitivity)

    chaos = _command(
        commands, "chaos", "the service hurt: workers killed, files changed, hostile input, a soak"
    )
    chaos.add_argument(
        "trials",
        nargs="*",
        metavar="TRIAL",
        help=f"of {', '.join(CHAOS_TRIALS)} (default: all, in that order)",
    )
    chaos.add_argument("--model", metavar="NAME", help="(default: the server's own default)")
    chaos.add_argument("--workers", type=_positive, default=2, help="of the server (default: 2)")
    chaos.add_argument(
        "--inputs", type=_positive, default=100_000, help="of the fuzzing (default: 100000)"
    )
    chaos.add_argument("--minutes", type=float, default=30.0, help="of the soak (default: 30)")
    chaos.add_argument("--quick", action="store_true", help="little of each, to see that it works")
    _add_resume(chaos)
    _add_device(chaos)

    beside = _command(
        commands, "peers", "this service beside other servers: one worker on one core, interleaved"
    )
    beside.add_argument("--peers", nargs="+", metavar="NAME", help="only these (default: all)")
    beside.add_argument(
        "--model", metavar="NAME", default="simple_cnn", help="that all serve (default: simple_cnn)"
    )
    beside.add_argument("--rounds", type=_positive, help="interleaved (default: 5, quick: 2)")
    beside.add_argument("--quick", action="store_true", help="short, to see that all works")
    _add_resume(beside)
    _add_data(beside)

    bulk = _command(
        commands, "bulk", "many images in one request, against in process on the same core"
    )
    bulk.add_argument("--models", nargs="+", metavar="NAME", help="only these (default: all)")
    bulk.add_argument("--images", type=_positive, default=256, help="in a request (default: 256)")
    bulk.add_argument("--rounds", type=_positive, help="interleaved (default: 5, quick: 2)")
    bulk.add_argument(
        "--seconds", type=float, help="of each way in each round (default: 3, quick: 0.5)"
    )
    bulk.add_argument("--quick", action="store_true", help="short, to see that all works")
    _add_resume(bulk)
    _add_data(bulk)

    settings = _command(
        commands, "settings", "which workers, threads and batch size serve most requests here"
    )
    settings.add_argument("--model", metavar="NAME", help="(default: the server's own default)")
    settings.add_argument("--rounds", type=_positive, help="interleaved (default: 3, quick: 1)")
    settings.add_argument("--quick", action="store_true", help="short, to see that all works")
    _add_data(settings)
    _add_device(settings)

    report = _command(
        commands, "report", "render REPORT.md, report.html and the README's table from the rows"
    )
    report.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    _add_output(report)

    compare = _command(commands, "compare", "what changed between two sets of rows, and is it real")
    compare.add_argument("before", metavar="A", help="folder of results, or run ids (a,b,c)")
    compare.add_argument("after", metavar="B", help="what is held against it")
    compare.add_argument(
        "--tolerance",
        type=float,
        default=10.0,
        metavar="PER_CENT",
        help="of speed that is let pass (default: 10)",
    )
    compare.add_argument(
        "--accuracy-tolerance",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="of accuracy that are let pass (default: 0.5)",
    )

    show = _command(commands, "show", "the rows of one model or of one run")
    show.add_argument("name", metavar="MODEL|RUN", help="a model's name or the start of a run id")

    _command(commands, "ls", "what has been measured, when and where")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=EXAMPLES[name] + "\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=results_dir(),
        metavar="FOLDER",
        help="where the rows are (default: CIFAR10_RESULTS, else the project's results)",
    )
    parser.add_argument("--json", action="store_true", help="tell the outcome as JSON")
    return parser


def _add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume", action="store_true", help="go on with the newest session: skip what it has"
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="folder, tar, zip or npz, or `synthetic` (default: CIFAR10_DATA, else the official "
        "archive that `python -m training data` fetched)",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="cuda that would not really execute is an error (default: auto)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        default=PROJECT_ROOT,
        metavar="FOLDER",
        help="where REPORT.md and README.md are (default: the project)",
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    """A service for each model, and its data."""
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--url", help="a running service (default: start one for each model)")
    _add_data(parser)
    _add_device(parser)


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="(default: all in the store, in turn)")
    parser.add_argument("--url", help="a running service (default: start one for each model)")
    _add_data(parser)
    _add_device(parser)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < float("inf"):
        message = f"must be above 0, got {text}"
        raise argparse.ArgumentTypeError(message)
    return rate


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"expected a whole number of at least 1, got {text}"
        raise argparse.ArgumentTypeError(message)
    return number
