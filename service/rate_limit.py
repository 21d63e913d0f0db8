"""Rate limit per client address: a bucket of one second's requests, shared by all workers.

The buckets are in shared memory, so a client has one rate however many workers its connections
reach. Their number is fixed, so memory use does not grow with the number of clients. Two clients
that happen to share a bucket share its rate. The chance is below one in thirty thousand, and an
attacker cannot choose it: the bucket of an address depends on a key generated at startup.

Source of the algorithm: ITU-T I.371's generic cell rate algorithm, "virtual scheduling".
"""

import hashlib
import ipaddress
import os
import time
from collections.abc import Callable
from math import ceil

from service.problems import Kind, Problem
from service.workers.board import RATE_BUCKETS, Board

_IPV6_NETWORK_BITS = 64
"""Prefix length that counts as one client. Providers give each customer at least this network, with
2⁶⁴ addresses."""


class RateLimit:
    """Limits the request rate of each client address.

    Args:
        rate: requests per second from each address.
        board: the shared memory that holds the buckets.
        key: key of the address hash, the same in all workers.
        clock: clock in seconds, the same in all workers.
    """

    def __init__(
        self,
        rate: float,
        board: Board,
        key: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1.0 / rate
        # The bucket must hold at least one whole request.
        self._burst = max(1.0, rate) * self._interval
        self._buckets = board.buckets
        self._key = key
        self._clock = clock

    def check(self, address: str) -> None:
        """Count one request of ``address``.

        Raises:
            Problem: 429 when the rate is exceeded; Retry-After gives the seconds to wait.
        """
        bucket = self._bucket_of(address)
        now = self._clock()
        due = max(self._buckets[bucket], now)
        wait = due + self._interval - self._burst - now
        if wait > 1e-9:
            seconds = ceil(wait)
            rate = 1.0 / self._interval
            detail = f"at most {rate:g} requests a second are accepted from one address"
            headers = ((b"retry-after", str(seconds).encode()),)
            raise Problem(Kind.RATE_LIMITED, detail, headers=headers)
        self._buckets[bucket] = due + self._interval

    def _bucket_of(self, address: str) -> int:
        digest = hashlib.blake2b(client_of(address), key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "big") % (2 * RATE_BUCKETS)


def client_of(address: str) -> bytes:
    """Return the identity of a client: its IPv4 address or its IPv6 network."""
    if ":" not in address:
        return address.encode()
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address.encode()
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped).encode()
    return parsed.packed[: _IPV6_NETWORK_BITS // 8]


def new_key() -> bytes:
    """Return a new hash key, for the life of one server process tree."""
    return os.urandom(16)
