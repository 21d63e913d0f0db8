"""The command line's options, described in one place."""

import argparse
from pathlib import Path
from typing import Final

from cifar10.environment import PROJECT_ROOT

_EXIT_CODES: Final = """\
exit codes:
  0    done (report --check: all is up to date)
  1    an error, told on one line (report --check: something is stale)
  2    wrong usage
  3    a model failed or a check did not hold: its row says why, the others were measured
  130  interrupted: what was measured is kept
"""

_EXAMPLES: Final = {
    "run": """\
examples:
  python -m bench run                               every model in the store
  python -m bench run --models simple_cnn --quick   a first look, in seconds
  python -m bench run --data cifar10-images.tar.xz --device cuda
""",
    "load": """\
examples:
  python -m bench load                              starts the service for each model in turn
  python -m bench load --model simple_cnn --users 32 --seconds 60
  python -m bench load --url http://server:3000     a service that is already running
""",
    "verify": """\
examples:
  python -m bench verify                            starts the service for each model in turn
  python -m bench verify --model simple_cnn --url http://server:3000
""",
    "robustness": """\
examples:
  python -m bench robustness                        every model, 2,000 test images, 25 copies each
  python -m bench robustness --models simple_cnn --images 10000
""",
    "resources": """\
examples:
  python -m bench resources
  python -m bench resources --models simple_cnn --device cuda
""",
    "report": """\
examples:
  python -m bench report                            REPORT.md, report.html, README's table, CSV
  python -m bench report --check                    only say whether they are up to date
""",
    "ls": """\
examples:
  python -m bench ls
  python -m bench ls --results /media/usb/results
""",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``python -m bench``."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure models and the service; keep raw rows; render the report from them.",
        epilog=_EXIT_CODES,
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

    verify = _command(commands, "verify", "every test image through the server, against in process")
    _add_server(verify)

    robustness = _command(
        commands, "robustness", "accuracy on noisy, blurred, recompressed, bright and flat copies"
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

    report = _command(
        commands, "report", "render REPORT.md, report.html and the README's table from the rows"
    )
    report.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    report.add_argument(
        "--output",
        type=Path,
        default=PROJECT_ROOT,
        metavar="FOLDER",
        help="where the report and README.md are (default: the project)",
    )

    _command(commands, "ls", "what has been measured, when and where")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=_EXAMPLES[name] + "\n" + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=PROJECT_ROOT / "results",
        metavar="FOLDER",
        help="where the rows are (default: the project's results)",
    )
    return parser


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


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="(default: all in the store, in turn)")
    parser.add_argument("--url", help="a running service (default: start one for each model)")
    _add_data(parser)
    _add_device(parser)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"expected a whole number of at least 1, got {text}"
        raise argparse.ArgumentTypeError(message)
    return number
