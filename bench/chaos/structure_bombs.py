"""Trial ``structure_bombs``: JSON whose structure is far more expensive than its size suggests."""

import asyncio
import functools
import gzip
import itertools
import json
import zlib
from typing import Final

from bench.chaos.attack import Attack, attack_trial
from bench.chaos.raw import AttackResult, Target, request_bytes, send_paced

UNPACKED_BYTES: Final = 10_000_000
_PER_SECOND: Final = 3.0


@functools.cache
def bodies() -> tuple[tuple[bytes, tuple[tuple[str, str], ...]], ...]:
    """Return (body, headers) for each bomb."""
    lists = b'{"inputs":[' + b"[]," * (UNPACKED_BYTES // 3) + b"[]]}"
    objects = b'{"inputs":[' + b"{}," * (UNPACKED_BYTES // 3) + b"{}]}"
    commas = b'{"inputs":[' + b"0," * (UNPACKED_BYTES // 2) + b"0]}"
    deep = b'{"inputs":' + b"[" * UNPACKED_BYTES
    keys = b"{" + b",".join(b'"%d":0' % number for number in range(UNPACKED_BYTES // 12)) + b"}"
    escapes = b'{"id":"' + b"\\u0041" * (UNPACKED_BYTES // 6) + b'"}'
    nested = _valid_but_nested()
    every = (lists, objects, commas, deep, keys, escapes, nested)
    packed = [(gzip.compress(one, 9), (("Content-Encoding", "gzip"),)) for one in every]
    deflated = [(zlib.compress(lists, 9), (("Content-Encoding", "deflate"),))]
    plain = [(one[: 2 << 20], ()) for one in (lists, deep, commas)]
    return tuple(itertools.chain(packed, deflated, plain))


def _valid_but_nested() -> bytes:
    """Return a valid request with each number nested in lists of one element."""
    rows = [[[[0]] * 3] * 32] * 32
    tensor = {"name": "image", "datatype": "UINT8", "shape": [250, 32, 32, 3], "data": [rows] * 250}
    return json.dumps({"inputs": [tensor]}).encode()


def prepare() -> None:
    """Make the bodies."""
    bodies()


def wage(target: Target) -> AttackResult:
    """Send the bombs in turn."""
    requests = [
        [request_bytes("POST", target.infer_route, body, headers)] for body, headers in bodies()
    ]
    return AttackResult(asyncio.run(send_paced(target, requests, _PER_SECOND)))


TRIAL: Final = attack_trial(
    "structure_bombs", "JSON of a costly structure, packed", Attack(wage, prepare)
)
