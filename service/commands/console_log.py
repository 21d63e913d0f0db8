"""Print the server's log in a readable form on a terminal."""

import json
import os
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Final, TextIO

_PAUSE_SECONDS: Final = 0.2
_COLOURS: Final = {"warning": "33", "error": "31", "critical": "31"}
_KNOWN: Final = {"time", "level", "logger", "message", "process", "exception"}


class ConsoleLog:
    """Writes the server's JSON log lines as readable text, and other lines unchanged.

    Until the server is ready, information is shown from the first worker only, because every worker
    logs the same.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._lock = threading.Lock()
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
        level, process = event.get("level", "info"), event.get("process")
        if not self._ready and level == "info":
            self._first = process if self._first is None else self._first
            if process != self._first:
                return
        self._write(_text(event))

    def ready(self, line: str) -> None:
        """Write that the server is ready."""
        self._ready = True
        self._write(line if os.environ.get("NO_COLOR") else f"\x1b[32m{line}\x1b[0m")

    def _write(self, line: str) -> None:
        with self._lock:
            self._output.write(line + "\n")
            self._output.flush()


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


def wait_until_ready(
    line: str, log: ConsoleLog, address: str, has_ended: Callable[[], bool]
) -> None:
    """Wait until the server at ``address`` is ready, then write ``line``. Return without writing if
    the server ends first."""
    while not has_ended():
        if _is_ready(address):
            log.ready(line)
            return
        time.sleep(_PAUSE_SECONDS)


def _is_ready(address: str) -> bool:
    # Our own server's certificate need not match this name.
    is_https = address.startswith("https:")
    trusting = ssl._create_unverified_context() if is_https else None  # noqa: S323
    try:
        with urllib.request.urlopen(  # noqa: S310 - our own server
            f"{address}/readyz", timeout=5, context=trusting
        ) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, HTTPException):
        return False
