"""Tests of ``cifar10 serve``: the checks before it starts, and its output on a terminal."""

import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cifar10.commands.main import main
from service.commands.console_log import ConsoleLog, wait_until_ready

ROOT = Path(__file__).parent.parent.parent.parent


def event(message: str, process: int, level: str = "info", **more: object) -> str:
    time_ = "2026-11-27T21:32:01.166+00:00"
    return json.dumps(
        {"time": time_, "level": level, "message": message, "process": process, **more}
    )


def test_a_port_in_use_stops_startup_with_one_line(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("CIFAR10_MODELS", str(tiny_store))
    monkeypatch.setenv("CIFAR10_DEFAULT_MODEL", "tiny_a")
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: port {port} is in use; stop that program, or choose another")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CIFAR10_DEVISE", "cpu", "Did you mean CIFAR10_DEVICE?"),
        ("CIFAR10_LOAD", "nosuch", "CIFAR10_LOAD names 'nosuch'"),
        ("CIFAR10_MODELS", "/nowhere", "no model in /nowhere"),
    ],
)
def test_wrong_settings_and_models_stop_startup_with_one_line(
    variable: str, value: str, said: str, tiny_store: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("CIFAR10_MODELS", str(tiny_store))
    monkeypatch.setenv(variable, value)
    assert main(["serve"]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_the_log_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output = io.StringIO()
    log = ConsoleLog(output)
    log.show(event("model compact is ready", 7))
    log.show(event("model compact is ready", 8))  # another worker says the same
    log.show(event("slow", 8, "warning"))
    log.ready("Ready: http://localhost:3000 (1 model, 2 workers, CPU)")
    log.show(event("request", 8, route="/classify", status=200))
    log.show("not JSON\n")
    assert output.getvalue().splitlines() == [
        "21:32:01 model compact is ready",
        "21:32:01 warning slow",
        "Ready: http://localhost:3000 (1 model, 2 workers, CPU)",
        "21:32:01 request route=/classify status=200",
        "not JSON",
    ]


def test_a_server_that_ends_early_is_never_reported_ready() -> None:
    output = io.StringIO()
    wait_until_ready(
        "Ready", ConsoleLog(output), "http://localhost:1", iter([False, True]).__next__
    )
    assert output.getvalue() == ""


def test_on_a_terminal_the_log_ends_with_the_address(tiny_store: Path, tmp_path: Path) -> None:
    """Uses a real server on a real pseudo-terminal, stopped with Ctrl-C."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cifar10", "serve", "--port", str(port)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CIFAR10_MODELS": str(tiny_store),
            "CIFAR10_DEFAULT_MODEL": "tiny_a",
            "CIFAR10_WORKERS": "1",
            "CIFAR10_DEVICE": "cpu",
            "BENTOML_HOME": str(tmp_path / "bentoml"),
            "NO_COLOR": "1",
        },
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    )
    os.close(end)
    shown, limit, stopped = "", time.monotonic() + 180, False
    while time.monotonic() < limit:
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 4096).decode()
            except OSError:
                break
        if "Ready: " in shown and not stopped:
            os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
            stopped = True
    code = process.wait(30)
    os.close(terminal)
    lines = shown.splitlines()
    assert f"Ready: http://localhost:{port} (2 models, 1 worker, CPU)" in lines, shown
    assert re.fullmatch(r"\d\d:\d\d:\d\d .*", lines[0]), shown
    assert "Traceback" not in shown
    assert code == 0
