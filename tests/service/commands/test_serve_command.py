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
from service.commands.console_log import ConsoleLog
from tests.processes import end_group

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
    start = {"address": "http://localhost:3000", "models": ["compact"], "device": "cpu"}
    log.show(event("ready", 8, workers=2, **start))
    log.show(event("request", 8, route="/classify", status=200))
    log.show("not JSON\n")
    assert output.getvalue().splitlines() == [
        "21:32:01 model compact is ready",
        "21:32:01 warning slow",
        "Ready: http://localhost:3000 (1 model, 2 workers, CPU)",
        "21:32:01 request route=/classify status=200",
        "not JSON",
    ]


def serve(store: Path, tmp_path: Path, *options: str, **streams: int) -> subprocess.Popen[bytes]:
    """Start ``cifar10 serve`` with two workers, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cifar10", "serve", *options],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CIFAR10_MODELS": str(store),
            "CIFAR10_DEFAULT_MODEL": "tiny_a",
            "CIFAR10_WORKERS": "2",
            "CIFAR10_DEVICE": "cpu",
            "BENTOML_HOME": str(tmp_path / "bentoml"),
            "NO_COLOR": "1",
        },
        start_new_session=True,
        **streams,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def test_on_a_terminal_the_log_ends_with_the_address(tiny_store: Path, tmp_path: Path) -> None:
    """Uses a real server on a real pseudo-terminal, stopped with Ctrl-C."""
    port = free_port()
    terminal, end = pty.openpty()
    process = serve(tiny_store, tmp_path, "--port", str(port), stdin=end, stdout=end, stderr=end)
    os.close(end)
    shown, limit, stopped = "", time.monotonic() + 180, False
    try:
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
    finally:
        end_group(process)
    os.close(terminal)
    lines = shown.splitlines()
    ready = lines.index(f"Ready: http://localhost:{port} (2 models, 2 workers, CPU)")
    assert sum("is ready on cpu" in line for line in lines[:ready]) == 2, shown
    assert not any("is ready on cpu" in line for line in lines[ready:]), shown
    assert re.fullmatch(r"\d\d:\d\d:\d\d .*", lines[0]), shown
    assert "Traceback" not in shown
    assert code == 0


def test_in_a_pipe_one_record_after_all_others_says_ready(tiny_store: Path, tmp_path: Path) -> None:
    port = free_port()
    command = serve(tiny_store, tmp_path, "--port", str(port), stdout=subprocess.PIPE)
    with command as process:
        try:
            assert process.stdout is not None
            events = []
            for line in process.stdout:
                events.append(json.loads(line))
                if events[-1]["message"] == "ready":
                    break
            process.terminate()
            rest = [json.loads(line)["message"] for line in process.stdout.read().splitlines()]
            assert process.wait(60) == 0
        finally:
            end_group(process)
    ready = {name: events[-1][name] for name in ("address", "models", "workers", "device")}
    models = ["tiny_a", "tiny_b"]
    address = f"http://localhost:{port}"
    assert ready == {"address": address, "models": models, "workers": 2, "device": "cpu"}
    loaded = [event["message"].split()[1] for event in events if "is ready on" in event["message"]]
    assert sorted(loaded) == 2 * ["tiny_a"] + 2 * ["tiny_b"]
    assert not any("ready" in message for message in rest)
