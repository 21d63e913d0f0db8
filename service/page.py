"""Routes for people: the page at ``/``, the API page, pages of models, and their files."""

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import orjson

from service.exchange import JSON, Answer, Request, Route, query_parameters
from service.problems import Headers
from service.status import STATIC

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Answer]]

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
    "more.js": b"text/javascript; charset=utf-8",
    "examples.js": b"text/javascript; charset=utf-8",
    "efficiency.js": b"text/javascript; charset=utf-8",
    "docs.js": b"text/javascript; charset=utf-8",
    "models.js": b"text/javascript; charset=utf-8",
}


class Page:
    """Handles the routes of the page.

    Args:
        efficiency: path of the efficiency table; read once, here.
    """

    def __init__(self, efficiency: Path | None) -> None:
        self._efficiency = NOT_MEASURED if efficiency is None else read_efficiency(efficiency)
        self.routes: tuple[Route, ...] = (
            Route("/", "GET", _always(_html(_read("index.html")))),
            Route("/docs", "GET", _always(_html(_read("docs.html")))),
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


def or_page(answer: Handler, *, depth: int = 0) -> Handler:
    """Return a handler that gives a browser the page of the models, and others the JSON.

    Args:
        answer: handler of the same address that answers JSON.
        depth: number of folders between the page's address and the root.
    """
    text = _read("models.html").replace(b'="static/', b'="' + b"../" * depth + b"static/")
    vary = (b"vary", b"accept")
    page = _html(text, vary)

    async def give(request: Request) -> Answer:
        if asks_for_page(request.headers):
            return page
        document = await answer(request)
        # Without it, a cache may answer a browser with this document.
        return dataclasses.replace(document, headers=(*document.headers, vary))

    return give


def asks_for_page(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request for the models gets their page rather than JSON."""
    return b"text/html" in headers.get(b"accept", b"")


def _html(text: bytes, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(200, text, b"text/html; charset=utf-8", (*_HEADERS, *headers))


def _read(name: str) -> bytes:
    return (STATIC / name).read_bytes()


def _always(answer: Answer) -> Handler:
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
