"""Start the server: `bentoml serve` with checks before it and a readable log.

The settings, the models and the port are checked before anything starts. On a terminal the log is
readable text, and a final line gives the server's address. In a file or a pipe the log is JSON, one
object per line. Arguments after `--` are passed to `bentoml serve` unchanged.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Final

import click

from cifar10.commands.command import ERROR
from cifar10.commands.command import command as make_command
from cifar10.commands.ports import busy_message, is_free
from cifar10.commands.terminal import say_error
from cifar10.environment import PROJECT_ROOT, models_dir, results_dir
from cifar10.predictor import likely_device
from cifar10.store import ModelStore
from service.commands.console_log import ConsoleLog, wait_until_ready
from service.models import choose
from service.settings import Settings, read_settings

SERVICE: Final = "service.app:Cifar10"
DEFAULT_PORT: Final = 3000
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP)


@make_command(
    __name__,
    __doc__,
    """\
cifar10 serve
cifar10 serve --port 8080
cifar10 serve -- --ssl-certfile cert.pem --ssl-keyfile key.pem
""",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="The port to listen on.",
)
@click.option("--host", help="The address to listen on (default: all).")
@click.argument("bentoml", nargs=-1, metavar="[-- BENTOML OPTIONS]", type=click.UNPROCESSED)
def command(port: int, host: str | None, bentoml: tuple[str, ...]) -> int:
    """Check the configuration, then run the server until it ends."""
    settings = read_settings()
    models = choose(settings, ModelStore(models_dir())).names
    if not is_free(host, port):
        say_error(busy_message(host, port))
        return ERROR
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--port", str(port), "--quiet"]
    command += ["--working-dir", str(PROJECT_ROOT)]
    command += [*(["--host", host] if host else []), *bentoml]
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # The server has another working folder, and these paths may be relative to this one.
    os.environ["CIFAR10_MODELS"] = str(models_dir().absolute())
    os.environ["CIFAR10_RESULTS"] = str(results_dir().absolute())
    if not sys.stdout.isatty():
        sys.stdout.flush()
        os.execv(sys.executable, command)  # noqa: S606 - our own command
    address = _address(host, port, secure=any("--ssl-certfile" in one for one in bentoml))
    return _on_terminal(command, ready_line(settings, models, address), address)


def ready_line(settings: Settings, models: Sequence[str], address: str) -> str:
    """Return the final line of the startup log: the server's address, models, workers and
    device."""
    where = likely_device(settings.device).upper()
    what = f"{_count(len(models), 'model')}, {_count(settings.workers, 'worker')}, {where}"
    return f"Ready: {address} ({what})"


def _address(host: str | None, port: int, *, secure: bool) -> str:
    shown = "localhost" if host in (None, "0.0.0.0", "::", "127.0.0.1") else str(host)  # noqa: S104
    return f"{'https' if secure else 'http'}://{shown}:{port}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _on_terminal(command: Sequence[str], ready: str, address: str) -> int:
    log = ConsoleLog(sys.stdout)
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        for number in _FORWARDED:
            signal.signal(number, lambda which, _: server.send_signal(which))
        # Ctrl-C reaches the server directly, because it is in the same process group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(
            target=wait_until_ready,
            args=(ready, log, address, lambda: server.poll() is not None),
            daemon=True,
        ).start()
        output: IO[str] | None = server.stdout
        for line in output or ():
            log.show(line)
    return max(0, server.returncode)
