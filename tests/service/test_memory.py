"""Tests that the memory of a large image is returned to the operating system."""

import os
import subprocess
import sys
from typing import Final

import pytest

from cifar10.environment import PROJECT_ROOT
from service.memory import return_freed_memory

PROGRAM = """
import io, sys, threading
from pathlib import Path
from PIL import Image
from cifar10.images import DecodeLimits, decode_image
from service.memory import return_freed_memory

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def saved(kind: str, side: int, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side)).save(stream, kind, **options)
    return stream.getvalue()

if sys.argv[1] == "True":
    return_freed_memory()
kinds = {"PNG": {}, "JPEG": {"progressive": True}, "WEBP": {"quality": 1, "method": 0}}
small = [saved(kind, 64, **options) for kind, options in kinds.items()]
large = [saved(kind, 3_000, **options) for kind, options in kinds.items()]
kept = []

def decode(images: list[bytes]) -> None:
    for image in images:
        decode_image(image, DecodeLimits(max_pixels_per_byte=10**9))
        kept.append(bytes(2_000))  # what outlives a request

for images in (small, large):
    thread = threading.Thread(target=decode, args=[images])
    before = resident()
    thread.start()
    thread.join()
print(resident() - before)
"""

KEEPING: Final = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""What glibc comes to by itself after one large block, given at once: whether it does depends on
where the blocks of a run happen to lie."""


@pytest.mark.skipif(not return_freed_memory(), reason="needs Linux with glibc")
def test_the_memory_of_a_large_image_is_returned():
    def grown(is_on: bool) -> int:
        command = [sys.executable, "-c", PROGRAM, str(is_on)]
        found = subprocess.run(
            command,
            cwd=PROJECT_ROOT,
            env=os.environ | KEEPING,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(found.stdout)

    assert grown(is_on=True) < 12e6 < grown(is_on=False)


FRAGMENTING: Final = """
import asyncio, ctypes
from service.memory import _resident_bytes, trim_as_it_grows

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)

async def main() -> None:
    before = _resident_bytes()
    trimming = asyncio.create_task(trim_as_it_grows(0.0))
    await asyncio.sleep(0)  # it looks at the size of the process
    blocks = [libc.malloc(3_000) for _ in range(20_000)]
    for block in blocks:
        ctypes.memset(block, 1, 3_000)
    for number, block in enumerate(blocks):
        if number % 20:
            libc.free(block)
    grown = _resident_bytes() - before
    while _resident_bytes() - before > grown // 2:
        await asyncio.sleep(0.0)
    trimming.cancel()

asyncio.run(asyncio.wait_for(main(), 60))
"""


@pytest.mark.skipif(not return_freed_memory(), reason="needs Linux with glibc")
def test_free_memory_between_used_blocks_is_returned():
    subprocess.run([sys.executable, "-c", FRAGMENTING], cwd=PROJECT_ROOT, check=True)
