"""Start the server: `bentoml serve` with checks before it and a readable log.

The settings, the models and the port are checked before anything starts. On a terminal the log is
readable text, and its start ends with a line that gives the server's address. In a file or a pipe,
or with --json, the log is JSON, one object per line; the object whose message is "ready" has the
address, the models, the number of workers and the device. Arguments after `--` are passed to
`bentoml serve` unchanged.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Final

import click

from cifar10.commands.command import ERROR
from cifar10.commands.command import command as make_command
from cifar10.commands.ports import busy_message, is_free
from cifar10.commands.terminal import say_error
from cifar10.environment import PROJECT_ROOT, models_dir, results_dir
from cifar10.store import ModelStore
from service.choice import choose
from service.commands.console_log import ConsoleLog
from service.settings import read_settings
from service.telemetry.logs import ADDRESS_VARIABLE

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
@click.option("--json", "as_json", is_flag=True, help="Log as JSON on a terminal, too.")
@click.argument("bentoml", nargs=-1, metavar="[-- BENTOML OPTIONS]", type=click.UNPROCESSED)
def command(port: int, host: str | None, as_json: bool, bentoml: tuple[str, ...]) -> int:
    """Check the configuration, then run the server until it ends."""
    choose(read_settings(), ModelStore(models_dir()))  # or end with one line
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
    secure = any("--ssl-certfile" in one for one in bentoml)
    os.environ[ADDRESS_VARIABLE] = _address(host, port, secure=secure)
    if as_json or not sys.stdout.isatty():
        sys.stdout.flush()
        os.execv(sys.executable, command)  # noqa: S606 - our own command
    return _on_terminal(command)


def _address(host: str | None, port: int, *, secure: bool) -> str:
    shown = "localhost" if host in (None, "0.0.0.0", "::", "127.0.0.1") else str(host)  # noqa: S104
    return f"{'https' if secure else 'http'}://{shown}:{port}"


def _on_terminal(command: Sequence[str]) -> int:
    log = ConsoleLog(sys.stdout)
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        for number in _FORWARDED:
            signal.signal(number, lambda which, _: server.send_signal(which))
        # Ctrl-C reaches the server directly, because it is in the same process group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        output: IO[str] | None = server.stdout
        for line in output or ():
            log.show(line)
    return max(0, server.returncode)
