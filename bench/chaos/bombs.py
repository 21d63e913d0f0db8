"""Trial ``bombs``: small bodies that demand much memory, time or recursion."""

import asyncio
import gzip
import io
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from PIL import Image

from bench.chaos.inputs import HostileInput
from bench.chaos.raw import BOUNDARY, FORM_TYPE, form_bytes, request_bytes
from bench.chaos.trial import Trial, TrialRun, Verdict


async def bomb(run: TrialRun) -> Verdict:
    """Send bombs while other clients are served."""
    before = run.worker_ids()
    corpus = list(bombs(run.model))
    client, others = run.client(), run.client()
    peak, longest, bystanders = 0, 0.0, Counter[int]()
    run.weigh()
    for number, one in enumerate(corpus):
        run.progress(f"chaos: {one.kind}", number, len(corpus))
        start = time.monotonic()
        sent = asyncio.ensure_future(client.send_bytes(one.content))
        while not sent.done():
            bystanders[await others.send(number)] += 1
            peak = max(peak, run.server.memory_bytes())
        run.statuses[sent.result()] += 1
        longest = max(longest, time.monotonic() - start)
        run.weigh()
    client.close()
    others.close()
    figures = {
        "bombs": float(len(corpus)),
        "failures": float(run.failures()),
        "workers_that_died": float(len(before - run.worker_ids())),
        "longest_answer_s": longest,
        "other_requests": float(bystanders.total()),
        "other_requests_failed": float(bystanders.total() - bystanders[200]),
        "memory_before_mb": run.memory[0][1] / 1e6,
        "memory_peak_mb": peak / 1e6,
        "memory_after_mb": run.memory[-1][1] / 1e6,
    }
    return Verdict(figures, judge(figures))


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    return [
        f"{figures[name]:.0f} {what}"
        for name, what in (
            ("failures", "bombs got no answer or a 5xx that is not by design"),
            ("workers_that_died", "workers died"),
            ("other_requests_failed", "requests of other clients failed"),
        )
        if figures[name]
    ]


def bombs(model: str) -> Iterator[HostileInput]:
    """Return the corpus. Each input has a well-formed head, so the server must respond."""
    infer = f"/v2/models/{model}/infer"

    def post(
        kind: str, route: str, content_type: str, body: bytes, *headers: tuple[str, str]
    ) -> HostileInput:
        whole = request_bytes("POST", route, body, (("Content-Type", content_type), *headers))
        return HostileInput(kind, whole)

    for side in (5_000, 20_000, 60_000, 2**31 - 1):
        yield post(f"PNG of {side:,}²", "/classify", "image/png", _png(side, side))
    yield post("PNG, one row too long", "/classify", "image/png", _png(2**31 - 1, 1))
    black = io.BytesIO()
    Image.new("RGB", (4_800, 4_800)).save(black, "PNG")
    yield post("PNG of 23 megapixels", "/classify", "image/png", black.getvalue())
    wide = io.BytesIO()
    Image.new("RGB", (7_900, 7_900)).save(wide, "JPEG", quality=1)
    yield post("JPEG of 62 megapixels", "/classify", "image/jpeg", wide.getvalue())
    packed = gzip.compress(b"\0" * (256 << 20), 9)
    encoded = ("Content-Encoding", "gzip")
    yield post("gzip of 256 MiB", infer, "application/json", packed, encoded)
    yield post("100,000 brackets", infer, "application/json", b'{"inputs":' + b"[" * 100_000)
    yield post("20,000 parts", "/classify/batch", FORM_TYPE, form_bytes([b"x"] * 20_000))
    near = (b"\r\n--" + BOUNDARY.encode()[:-1]) * 400_000
    yield post("400,000 near-boundaries", "/classify/batch", FORM_TYPE, near)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (999999999999, 32, 32, 3), }"
    yield post("array of 3 TB", "/classify/batch", "application/x-npy", _npy(header))
    yield post("nested array header", "/classify/batch", "application/x-npy", _npy(b"(" * 400))


def _npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


TRIAL: Final = Trial(
    "bombs",
    "Small bodies that ask for much",
    "every bomb is answered, no worker dies, other clients are all served meanwhile",
    bomb,
)
