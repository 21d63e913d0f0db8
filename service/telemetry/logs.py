"""The log: one JSON object on one line for each event, without the content of any image."""

import logging
import random
import sys
from datetime import UTC, datetime

import orjson


class JsonFormatter(logging.Formatter):
    """A record as JSON: time (UTC), level, logger, message, process, and what ``extra`` carried
    under ``context``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
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
    """The access log: a line for a share of the requests, chosen by chance.

    Nothing in it is the client's own text but the address and the method: the route is one of ours.

    Args:
        share: 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._logger = logging.getLogger("service.access_log")

    def note(
        self, method: str, route: str, status: int, seconds: float, client: str, trace: str | None
    ) -> None:
        """One request that has been answered."""
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


def configure_logging() -> None:
    """Send what the service and the kernel log to standard output, as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    for name in ("service", "cifar10"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    # It would tell of every request that is no HTTP, as often as anybody sends one.
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.handlers = [handler]
    uvicorn.setLevel(logging.ERROR)
    uvicorn.propagate = False
    # It warns of every malformed form; the answer and the metrics say so already.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
