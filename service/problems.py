"""Refusals of requests as RFC 9457 problem documents, each of a kind from one fixed table.

The kind's name is the last part of the document's ``type`` and the metric label that counts it.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

import orjson

MEDIA_TYPE: Final = b"application/problem+json"

Headers = tuple[tuple[bytes, bytes], ...]


class Kind(Enum):
    """Every reason for refusing a request: (name, HTTP status, title)."""

    MALFORMED = ("malformed", 400, "The request is malformed")
    UNAUTHORIZED = ("unauthorized", 401, "A token is required")
    FORBIDDEN = ("forbidden", 403, "This is not allowed here")
    NO_SUCH_MODEL = ("no-such-model", 404, "There is no such model")
    NOT_FOUND = ("not-found", 404, "There is nothing at this address")
    METHOD = ("method-not-allowed", 405, "This address does not support this method")
    BODY_TIMEOUT = ("body-timeout", 408, "The body did not arrive in time")
    HEAD_TIMEOUT = ("head-timeout", 408, "The request did not arrive in time")
    UNFIT_FILE = ("unfit-file", 409, "The new file cannot be served")
    TOO_LARGE = ("too-large", 413, "The request is too large")
    UNSUPPORTED = ("unsupported-type", 415, "The content is not an image of an accepted type")
    UNDECODABLE = ("undecodable", 422, "The image cannot be decoded")
    TOO_MANY_PIXELS = ("too-many-pixels", 422, "The image has too many pixels")
    RATE_LIMITED = ("rate-limited", 429, "Too many requests from this address")
    HEAD_TOO_LARGE = ("head-too-large", 431, "The request's headers are too large")
    INTERNAL = ("internal", 500, "The server failed")
    QUEUE_FULL = ("queue-full", 503, "The server is busy")
    NOT_READY = ("not-ready", 503, "The server is not ready")
    TOO_MANY_CONNECTIONS = ("too-many-connections", 503, "The server has too many connections")
    DEADLINE = ("deadline", 504, "The deadline has passed")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title


class Problem(Exception):  # noqa: N818 — RFC 9457's own word
    """A refused request: raised where the reason is found, turned into a response by the edge.

    Args:
        kind: the reason.
        detail: what was received, what was expected and what to do.
        extras: additional members of the document.
        headers: additional headers of the response.
        instance: the URI of this occurrence.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        extras: Mapping[str, Any] = MappingProxyType({}),
        headers: Headers = (),
        instance: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.extras = extras
        self.headers = headers
        self.instance = instance

    def document(self) -> dict[str, Any]:
        """Return the problem document."""
        document: dict[str, Any] = {
            "type": f"urn:problem-type:cifar10:{self.kind.slug}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        if self.instance is not None:
            document["instance"] = self.instance
        document.update(self.extras)
        return document

    def body(self) -> bytes:
        """Return the problem document as JSON."""
        return orjson.dumps(self.document())


def malformed(detail: str) -> Problem:
    """Return a 400 problem: the request is malformed."""
    return Problem(Kind.MALFORMED, detail)


def no_such_model(name: str, there_are: Iterable[str]) -> Problem:
    """Return a 404 problem that lists the available models."""
    models = sorted(there_are)
    detail = f"no model {name[:64]!r} is loaded; available: {', '.join(models)}"
    return Problem(Kind.NO_SUCH_MODEL, detail, extras={"models": models})


def method_not_allowed(method: str, allowed: str) -> Problem:
    """Return a 405 problem with the Allow header."""
    detail = f"this address supports {allowed}, not {method[:16]}"
    return Problem(Kind.METHOD, detail, headers=((b"allow", allowed.encode()),))


def too_large(limit: int) -> Problem:
    """Return a 413 problem: the body has too many bytes."""
    detail = f"at most {limit:,} bytes are accepted; send a smaller copy"
    return Problem(Kind.TOO_LARGE, detail, extras={"max_bytes": limit})


def too_many_images(limit: int) -> Problem:
    """Return a 413 problem: the request has too many images."""
    detail = f"at most {limit:,} images are accepted in one request; send the rest in another"
    return Problem(Kind.TOO_LARGE, detail, extras={"max_images": limit})


def try_later(kind: Kind, detail: str) -> Problem:
    """Return a 503 problem with Retry-After."""
    return Problem(kind, detail, headers=((b"retry-after", b"1"),))
