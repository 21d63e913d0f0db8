"""Types shared by the edge and the route handlers: request, answer, route, and query parsing."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl

import orjson

from service.problems import Headers, malformed

M = TypeVar("M")
P = TypeVar("P")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderMap = dict[bytes, bytes]

JSON: Final = b"application/json"

ALWAYS: Final[Headers] = ((b"x-content-type-options", b"nosniff"),)
"""Headers of every answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response. Immutable, so one instance may answer many requests."""

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
    """Time on the event loop's clock by which the request must be answered."""
    client: str = ""
    """The client's address; empty if unknown."""


class Caller(Protocol):
    """A request, over HTTP or gRPC, as far as the threads and the batcher need it."""

    @property
    def deadline(self) -> float:
        """Time on the event loop's clock by which the request must be answered."""

    @property
    def client(self) -> str:
        """The client's address; empty if unknown."""


End = Callable[[Answer | Exception], None]
"""Ends a request: receives its answer or why there is none."""
Reply = Callable[[Answer, Headers], None]
"""Writes an answer with more headers to the client."""


@dataclass(frozen=True, slots=True)
class Route:
    """An address, its one method and its handler."""

    template: str
    """Path as it appears in the metrics and in openapi.json."""
    method: str
    answer: Callable[[Request], Awaitable[Answer]]
    begin: Callable[[Request, bytes, End], bool] | None = None
    """Handler of a request that arrived with its whole body. It begins to answer the request
    without a task and returns True, or it returns False and ``answer`` answers the request."""


def delivering(end: End, write: Callable[[M, P], Answer]) -> Callable[[M, P | Exception], None]:
    """Return a function that receives a model and the outcome of its run, and ends the request.

    Args:
        end: ends the request.
        write: returns the answer for a model and its probabilities. If it fails, the request is
            ended with its exception: without a task, nobody else would tell the client.
    """

    def deliver(model: M, outcome: P | Exception) -> None:
        if isinstance(outcome, Exception):
            end(outcome)
            return
        try:
            answer = write(model, outcome)
        except Exception as error:
            end(error)
        else:
            end(answer)

    return deliver


def json_answer(document: dict[str, Any]) -> Answer:
    """Return a 200 answer with ``document`` as JSON."""
    return Answer(200, orjson.dumps(document))


def query_parameters(query: bytes, allowed: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the query's parameters.

    Raises:
        Problem: 400 for a parameter that is unknown or given twice, rather than ignoring it.
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
