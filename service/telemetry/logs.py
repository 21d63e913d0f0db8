"""The log: one JSON object on one line for each event, without the content of any image.

Every line of the process goes through one :class:`~service.telemetry.line_writer.LineWriter`,
BentoML's own too, so that a log that is blocked, dead or full stops nothing.
"""

import logging
import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import orjson

from service.telemetry.line_writer import LineWriter

STANDARD_OUTPUT: Final = 1

_BENTOML_LOGGERS: Final = ("", "bentoml", "circus")
"""Loggers for which BentoML sets handlers; "" is the root."""


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time (UTC), level, logger, message, process, and the fields that
    ``extra`` carries under ``context``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its line end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        line.update(getattr(record, "context", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class Journal:
    """The access log: a line for a random share of the requests.

    Only the address and the method are the client's own text; the route is one of ours.

    Args:
        share: 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._logger = logging.getLogger("service.access_log")

    def note(
        self, method: str, route: str, status: int, seconds: float, client: str, trace: str | None
    ) -> None:
        """Log one answered request, or not, by chance."""
        if random.random() >= self._share:  # noqa: S311 - nothing depends on who is chosen
            return
        context = {
            "method": method[:16],
            "route": route,
            "status": status,
            "milliseconds": round(seconds * 1e3, 3),
            "client": client,
        }
        if trace is not None:
            context["trace_id"] = trace
        self._logger.info("request", extra={"context": context})


class QueueingHandler(logging.Handler):
    """Formats a record and leaves it to the writer's thread."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line; never wait and never raise."""
        try:
            line = self.format(record)
        except Exception as error:  # its arguments do not fit its message, or cannot be shown
            line = f"a log record of {record.name} cannot be formatted: {type(error).__name__}"
        self._writer.put(line.encode(errors="backslashreplace") + b"\n")

    def flush(self) -> None:
        """Wait for the writer, within its bound; the standard library calls this at exit."""
        self._writer.flush()


def _drop_notice(count: int) -> bytes:
    message = f"{count} log lines were dropped: the log was blocked, full or closed"
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)
    return JsonFormatter().format(record).encode() + b"\n"


_writer: Final = LineWriter(STANDARD_OUTPUT, _drop_notice)


def on_dropped_lines(callback: Callable[[int], None]) -> None:
    """Call ``callback`` with each number of log lines that this process drops."""
    _writer.on_dropped = callback


def flush_log() -> None:
    """Wait until this process's log is written, for at most a second."""
    _writer.flush()


def rest_log() -> None:
    """End the log's thread until the next line, unless the log is blocked. Before a fork."""
    _writer.rest()


def configure_logging() -> None:
    """Send the log of the service, the kernel, uvicorn and BentoML to standard output, through a
    thread. Ours is JSON, BentoML's stays as it is."""
    handler = QueueingHandler(_writer)
    handler.setFormatter(JsonFormatter())
    for name in ("service", "cifar10"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    # Below errors, it logs each request that is no HTTP, as often as anybody sends one.
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.handlers = [handler]
    uvicorn.setLevel(logging.ERROR)
    uvicorn.propagate = False
    # It warns of every malformed form; the answer and the metrics say so already.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    for name in _BENTOML_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [_queueing(found) for found in logger.handlers]


def _queueing(handler: logging.Handler) -> logging.Handler:
    """Return a queueing handler in the place of one that writes to standard output or error."""
    if not isinstance(handler, logging.StreamHandler) or handler.stream not in (
        sys.stdout,
        sys.stderr,
    ):
        return handler
    replacement = QueueingHandler(_writer)
    replacement.setLevel(handler.level)
    replacement.setFormatter(handler.formatter)
    replacement.filters = list(handler.filters)
    return replacement
