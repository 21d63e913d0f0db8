"""How often one address may ask: a bucket of one second's requests, over all workers together.

The buckets are in the memory that the workers share, so a client has one rate however many workers
its connections reach, and their number is fixed, so no number of clients takes more memory. Two
clients that share a bucket by chance share its rate; the chance is below one in thirty thousand,
and nobody can choose it, because where an address goes depends on a key made at the start.

Source of the rule: ITU-T I.371's generic cell rate algorithm, "virtual scheduling".
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
"""What one customer of a provider has at least; so one client, and not 2⁶⁴."""


class RateLimit:
    """Args:
    rate: requests per second and address.
    board: has the buckets.
    key: of the hash; the same in all workers.
    clock: seconds, the same in all workers.
    """

    def __init__(
        self,
        rate: float,
        board: Board,
        key: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1.0 / rate
        # At least one whole request must fit.
        self._burst = max(1.0, rate) * self._interval
        self._buckets = board.buckets
        self._key = key
        self._clock = clock

    def check(self, address: str) -> None:
        """Count one request of ``address``.

        Raises:
            Problem: 429; says after how many seconds the next one is accepted.
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
    """What stands for one client: an IPv4 address, or an IPv6 network."""
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
    """A key for one program's life."""
    return os.urandom(16)
