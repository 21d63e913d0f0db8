"""Access control: bearer tokens, rate limit and CORS. Each is off unless configured."""

import hmac
from collections.abc import Iterable
from typing import Any, Final

from pydantic import SecretStr

from service.exchange import Answer, Route, Scope
from service.page import asks_for_page
from service.problems import Headers, Kind, Problem
from service.rate_limit import RateLimit
from service.settings import Settings
from service.workers.board import Board

ALWAYS_OPEN: Final = frozenset(
    ("/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready")
)
"""Paths of health checks, exempt from token and rate limit."""

PAGES: Final = frozenset(("/", "/docs", "/openapi.json"))
STATIC_FILES: Final = "/static/"
MODEL_PAGES: Final = frozenset(("/models", "/models/{name}"))
"""Addresses of pages, exempt from the token: a page must be loaded before it can ask for one. They
are the same on every server; what a page shows of this one, it requests with the token."""

RELOAD: Final = "/models/{name}/reload"
LOAD: Final = "/v2/repository/models/{name}/load"
UNLOAD: Final = "/v2/repository/models/{name}/unload"
ADMINISTRATION: Final = frozenset((RELOAD, LOAD, UNLOAD))
"""The administrative routes, whose handlers check the administrator's token themselves."""

_PREFLIGHT_SECONDS: Final = b"600"
_BEARER: Final = b"bearer "


class Access:
    """Checks a request before its handler runs.

    Args:
        settings: the tokens, the rate limit and the allowed origins.
        board: the memory that the workers share.
        key: key of the rate limit's address hash.
    """

    def __init__(self, settings: Settings, board: Board, key: bytes) -> None:
        self._tokens = tuple(t for t in (settings.token, settings.admin_token) if t is not None)
        if settings.token is None:
            self._tokens = ()
        self._limit = RateLimit(settings.rate_limit, board, key) if settings.rate_limit else None
        self._origins = frozenset(origin.encode() for origin in settings.cors_origins)

    @property
    def is_open(self) -> bool:
        """Whether no check is configured."""
        return not self._tokens and self._limit is None and not self._origins

    def admit(self, scope: Scope, route: Route | None) -> Answer | None:
        """Check a request. Return None to admit it, or the answer to a CORS preflight request.

        Raises:
            Problem: 401 without a valid token, 429 above the rate limit.
        """
        if scope["path"] in ALWAYS_OPEN:
            return None
        client = scope.get("client")
        self.check_rate(client[0] if client else "")
        if self._origins and route is not None and scope["method"] == "OPTIONS":
            answer = self._preflight(scope, route)
            if answer is not None:
                return answer
        is_administration = route is not None and route.template in ADMINISTRATION
        if not is_administration and not _is_page(scope, route):
            self.check_token(scope["headers"])
        return None

    def check_rate(self, address: str) -> None:
        """Count one request of a client.

        Raises:
            Problem: 429 above the rate limit.
        """
        if self._limit is not None:
            self._limit.check(address)

    def check_token(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Check that the headers contain a token, if this server requires one.

        Raises:
            Problem: 401 if they do not.
        """
        if self._tokens:
            check_token(headers, self._tokens)

    def headers(self, scope: Scope) -> Headers:
        """Return the CORS headers that let the requesting page read the answer."""
        if not self._origins:
            return ()
        origin = _header(scope["headers"], b"origin")
        if b"*" in self._origins:
            return ((b"access-control-allow-origin", b"*"),) if origin else ()
        vary = (b"vary", b"origin")
        if origin in self._origins:
            return ((b"access-control-allow-origin", origin), vary)
        return (vary,)

    def _preflight(self, scope: Scope, route: Route) -> Answer | None:
        origin = _header(scope["headers"], b"origin")
        allowed = b"*" in self._origins or origin in self._origins
        if not (origin and allowed and _header(scope["headers"], b"access-control-request-method")):
            return None
        headers = (
            (b"access-control-allow-methods", route.method.encode()),
            (b"access-control-allow-headers", b"authorization, content-type, traceparent"),
            (b"access-control-max-age", _PREFLIGHT_SECONDS),
        )
        return Answer(200, b"", b"text/plain", headers)


def check_token(headers: Any, accepted: tuple[SecretStr, ...]) -> None:
    """Check that the headers contain an accepted token, as ``Authorization: Bearer``.

    Raises:
        Problem: 401 if they do not.
    """
    given = _header(headers, b"authorization")
    if given[: len(_BEARER)].lower() == _BEARER:
        token = given[len(_BEARER) :].strip()
        # Compare with every token, each in constant time.
        matches = [hmac.compare_digest(token, one.get_secret_value().encode()) for one in accepted]
        if any(matches):
            return
    detail = "send the header Authorization: Bearer <token> with this server's token"
    raise Problem(
        Kind.UNAUTHORIZED, detail, headers=((b"www-authenticate", b'Bearer realm="cifar10"'),)
    )


def _is_page(scope: Scope, route: Route | None) -> bool:
    if route is not None and route.template in MODEL_PAGES:
        return asks_for_page(dict(scope["headers"]))
    return scope["path"] in PAGES or scope["path"].startswith(STATIC_FILES)


def _header(headers: Any, name: bytes) -> bytes:
    for key, value in headers:
        if key == name:
            return bytes(value)
    return b""
