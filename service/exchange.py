"""What passes between the edge and those who answer: a request, an answer, a route, a query."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from service.problems import Headers, malformed

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderMap = dict[bytes, bytes]

JSON: Final = b"application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response. One may be given to many clients."""

    status: int
    body: bytes
    media_type: bytes = JSON
    headers: Headers = ()


@dataclass(slots=True)
class Request:
    """A request whose body has not been read."""

    method: str
    path: str
    query: bytes
    headers: HeaderMap
    receive: Receive
    deadline: float
    """On the event loop's clock."""
    client: str = ""
    """Its address; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class Route:
    """An address, its one method, and who answers."""

    template: str
    """As it is named in the metrics and in openapi.json."""
    method: str
    answer: Callable[[Request], Awaitable[Answer]]


def json_answer(document: dict[str, Any]) -> Answer:
    """200 with ``document``."""
    return Answer(200, orjson.dumps(document))


def query_parameters(query: bytes, allowed: tuple[str, ...] = ()) -> dict[str, str]:
    """The query's parameters.

    Raises:
        Problem: 400 for one that is unknown or given twice, which is refused and not passed over.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        detail = "the query has too many parameters"
        raise malformed(detail) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            detail = f"unknown parameter {name[:32]!r}; accepted: {', '.join(allowed) or 'none'}"
            raise malformed(detail)
        if name in found:
            detail = f"the parameter {name!r} is given twice"
            raise malformed(detail)
        found[name] = value
    return found
