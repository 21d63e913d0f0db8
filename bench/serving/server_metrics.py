"""What the service itself says it did: its ``/metrics`` read before and after, and subtracted.

The histogram counts in buckets and from a request's headers to its answer, inside the server: no
network, no queue in front of it. So a client's p50 can be held against it in one way only: no
client can be faster than the bucket's lower edge.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from cifar10.errors import BenchError

ROUTE: Final = "/classify"
_SAMPLE: Final = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class ServerFigures:
    """Of ``POST /classify``, since the server started or between two readings."""

    answered: int
    """With a 200."""
    buckets: tuple[tuple[float, int], ...]
    """(upper edge in seconds, requests up to it), ascending; the last edge is infinite."""
    sum_s: float

    def since(self, before: "ServerFigures") -> "ServerFigures":
        """What was added after ``before``."""
        earlier = dict(before.buckets)
        return ServerFigures(
            self.answered - before.answered,
            tuple((edge, count - earlier.get(edge, 0)) for edge, count in self.buckets),
            self.sum_s - before.sum_s,
        )


def read_server(url: str) -> ServerFigures:
    """Ask a running server.

    Raises:
        BenchError: no answer, or one without the service's figures.
    """
    try:
        answer = httpx.get(f"{url}/metrics", timeout=10)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        message = f"{url}/metrics does not answer: {error}"
        raise BenchError(message) from error
    return parse_metrics(answer.text)


def parse_metrics(text: str) -> ServerFigures:
    """Read Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats).

    Raises:
        BenchError: the service's figures are not in it.
    """
    answered, total_s = 0, 0.0
    buckets: dict[float, int] = {}
    known = "cifar10_requests" in text
    for name, labels, value in _SAMPLE.findall(text):
        found: Mapping[str, str] = dict(_LABEL.findall(labels))
        if found.get("route") != ROUTE:
            continue
        if name == "cifar10_requests_total" and found.get("code") == "200":
            answered += int(float(value))
        elif name == "cifar10_request_seconds_bucket":
            buckets[float(found["le"])] = int(float(value))
        elif name == "cifar10_request_seconds_sum":
            total_s += float(value)
    if not known:
        message = "the server's /metrics has no cifar10_requests: it is not this service"
        raise BenchError(message)
    return ServerFigures(answered, tuple(sorted(buckets.items())), total_s)


def median_bucket_ms(buckets: tuple[tuple[float, int], ...]) -> tuple[float, float] | None:
    """Lower and upper edge, in ms, of the bucket that the median request is in; None without
    requests. The upper one may be infinite."""
    total = max((count for _, count in buckets), default=0)
    lower = 0.0
    for edge, count in buckets:
        if total and count >= total / 2:
            return lower * 1e3, edge * 1e3
        lower = edge
    return None


def finite(buckets: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    """For JSON, which has no infinity: the last edge as 0."""
    return tuple((0.0 if math.isinf(edge) else edge, count) for edge, count in buckets)


def infinite(buckets: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    """The reverse of :func:`finite`."""
    return tuple((edge or math.inf, count) for edge, count in buckets)
