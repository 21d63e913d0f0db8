"""Routes of the web page at ``/``: its files and its efficiency table."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import orjson

from service.exchange import JSON, Answer, Request, Route, query_parameters
from service.problems import Headers
from service.status import STATIC

logger = logging.getLogger(__name__)

NOT_MEASURED: Final = b'{"machines":[]}'

_HEADERS: Final[Headers] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"referrer-policy", b"no-referrer"),
)


_FILES: Final = {
    "page.css": b"text/css; charset=utf-8",
    "page.js": b"text/javascript; charset=utf-8",
    "efficiency.js": b"text/javascript; charset=utf-8",
}


class Page:
    """Handles the routes of the page.

    Args:
        efficiency: path of the efficiency table; read once, here.
    """

    def __init__(self, efficiency: Path | None) -> None:
        self._efficiency = NOT_MEASURED if efficiency is None else read_efficiency(efficiency)
        page = Answer(200, _read("index.html"), b"text/html; charset=utf-8", _HEADERS)
        self.routes: tuple[Route, ...] = (
            Route("/", "GET", _always(page)),
            Route("/efficiency", "GET", self.show_efficiency),
            *(
                Route(f"/static/{name}", "GET", _always(Answer(200, _read(name), media_type)))
                for name, media_type in _FILES.items()
            ),
        )

    async def show_efficiency(self, request: Request) -> Answer:
        """Answer ``GET /efficiency``: the file that ``cifar10 report`` wrote, unchanged."""
        query_parameters(request.query)
        return Answer(200, self._efficiency, JSON)


def _read(name: str) -> bytes:
    return (STATIC / name).read_bytes()


def _always(answer: Answer) -> Callable[[Request], Awaitable[Answer]]:
    async def give(_: Request) -> Answer:
        return answer

    return give


def read_efficiency(path: Path) -> bytes:
    """Return the efficiency table in ``path``; a table without machines if it is missing or
    invalid.

    The server works without a table, so an invalid one is logged and does not stop startup.
    """
    try:
        text = path.read_bytes()
        document = orjson.loads(text)
        if not isinstance(document, dict) or not isinstance(document.get("machines"), list):
            message = "it lacks the list 'machines'"
            raise ValueError(message)
    except FileNotFoundError:
        return NOT_MEASURED
    except (OSError, ValueError) as error:
        logger.error("the efficiency table %s cannot be shown: %s", path, error)
        return NOT_MEASURED
    return text
