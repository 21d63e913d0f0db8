"""Logging: one line with a JSON object per event, never the content of an image.

Every log line of the process, BentoML's included, goes through one
:class:`~service.telemetry.line_writer.LineWriter`, so that a blocked, closed or full log does not
stop the service.
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

ADDRESS_VARIABLE: Final = "_CIFAR10_ADDRESS"
"""Environment variable that passes the server's address from ``cifar10 serve`` to its log."""

READY: Final = "ready"
"""Message of the record that says that all workers of the server are ready."""

_BENTOML_LOGGERS: Final = ("", "bentoml", "circus")
"""Loggers whose handlers BentoML sets; "" is the root."""


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
    """The access log: one line for each of a random share of the requests.

    Only the address and the method come from the client; the route is one of a fixed set.

    Args:
        share: share of the requests to log, 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._logger = logging.getLogger("service.access_log")

    def note(
        self, method: str, route: str, status: int, seconds: float, client: str, trace: str | None
    ) -> None:
        """Log an answered request with probability ``share``."""
        if random.random() >= self._share:  # noqa: S311 - not security-relevant
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
    """Formats records and queues them for the writer's thread."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line. Never blocks and never raises."""
        try:
            line = self.format(record)
        except Exception as error:  # arguments that do not fit the message or cannot be formatted
            line = f"a log record of {record.name} cannot be formatted: {type(error).__name__}"
        self._writer.put(line.encode(errors="backslashreplace") + b"\n")

    def flush(self) -> None:
        """Wait for the writer, up to its time limit. The standard library calls this at exit."""
        self._writer.flush()


def _drop_notice(count: int) -> bytes:
    message = f"{count} log lines were dropped: the log was blocked, full or closed"
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)
    return JsonFormatter().format(record).encode() + b"\n"


_writer: Final = LineWriter(STANDARD_OUTPUT, _drop_notice)


def on_dropped_lines(callback: Callable[[int], None]) -> None:
    """Register a callback that is called with the number of log lines dropped, each time."""
    _writer.on_dropped = callback


def flush_log() -> None:
    """Wait until this process's log lines are written, for at most a second."""
    _writer.flush()


def rest_log() -> None:
    """End the log's thread until the next line, unless the log is blocked. Before a fork."""
    _writer.rest()


def configure_logging() -> None:
    """Send the logs of the service, the kernel, uvicorn and BentoML to standard output through a
    thread. Our lines and uvicorn's are JSON; BentoML's keep their format."""
    handler = QueueingHandler(_writer)
    handler.setFormatter(JsonFormatter())
    for name in ("service", "cifar10"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    # Below the level of errors it logs every request that is not HTTP, so clients could flood it.
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.handlers = [handler]
    uvicorn.setLevel(logging.ERROR)
    uvicorn.propagate = False
    # It warns of every malformed form, which the answer and the metrics already report.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_a_client_that_left)
    for name in _BENTOML_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [_queueing(found) for found in logger.handlers]


def _is_not_of_a_client_that_left(record: logging.LogRecord) -> bool:
    """Keep gRPC's records except the traceback of an answer that could not be sent. gRPC logs one
    when a client leaves at that moment, so clients could flood the log."""
    error = record.exc_info[0] if record.exc_info else None
    return error is None or error.__name__ != "ExecuteBatchError"


def _queueing(handler: logging.Handler) -> logging.Handler:
    """Return a queueing replacement for a handler that writes to standard output or error; any
    other handler unchanged."""
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
