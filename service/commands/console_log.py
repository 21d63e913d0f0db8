"""Print the server's log in a readable form on a terminal."""

import json
import os
from typing import Any, Final, TextIO

from service.telemetry.logs import READY

_COLOURS: Final = {"warning": "33", "error": "31", "critical": "31"}
_SUPERVISORS: Final = frozenset(("service.rpc.port",))
"""Loggers of the process that starts the workers; unlike the workers', their lines appear once."""
_KNOWN: Final = {"time", "level", "logger", "message", "process", "exception"}


class ConsoleLog:
    """Writes the server's JSON log lines as readable text, and other lines unchanged.

    Until the server is ready, information is shown from the first worker only, because every worker
    logs the same.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._first: int | None = None
        self._ready = False

    def show(self, line: str) -> None:
        """Write one line of the server's output."""
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "message" not in event:
            self._write(line.rstrip("\n"))
            return
        if event["message"] == READY:
            self._ready = True
            line = _ready_line(event)
            self._write(line if os.environ.get("NO_COLOR") else f"\x1b[32m{line}\x1b[0m")
            return
        level, process = event.get("level", "info"), event.get("process")
        if not self._ready and level == "info" and event.get("logger") not in _SUPERVISORS:
            self._first = process if self._first is None else self._first
            if process != self._first:
                return
        self._write(_text(event))

    def _write(self, line: str) -> None:
        self._output.write(line + "\n")
        self._output.flush()


def _ready_line(event: dict[str, Any]) -> str:
    """Return the final line of the start: the server's address, models, workers and device."""
    models = _count(len(event["models"]), "model")
    workers = _count(event["workers"], "worker")
    return f"Ready: {event['address']} ({models}, {workers}, {event['device'].upper()})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _text(event: dict[str, Any]) -> str:
    level = str(event.get("level", "info"))
    clock = str(event.get("time", ""))[11:19]
    marked = level if level != "info" else ""
    if marked and not os.environ.get("NO_COLOR"):
        marked = f"\x1b[{_COLOURS.get(level, '0')}m{level}\x1b[0m"
    more = " ".join(f"{key}={value}" for key, value in event.items() if key not in _KNOWN)
    parts = [clock, marked, str(event["message"]), more]
    text = " ".join(part for part in parts if part)
    return f"{text}\n{event['exception']}" if event.get("exception") else text
