"""Images made to cost more than they seem to, and the tools to make them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

EOI = b"\xff\xd9"


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """``png`` with chunks after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def segment(marker: int, content: bytes = b"") -> bytes:
    """A JPEG marker segment."""
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def scan_bomb(side: int, scans: int) -> bytes:
    """A progressive JPEG, ``side`` pixels square, whose scans say nothing and visit every block.

    Each is a copy of one for AC coefficients of the first component, with end-of-band runs only.
    """
    jpeg = saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    starts = [at for at in range(len(jpeg) - 1) if jpeg[at : at + 2] == b"\xff\xda"]
    last = jpeg[starts[1] : starts[2]]
    last = last[: last.find(b"\xff", 2)] if b"\xff" in last[2:] else last
    return jpeg[: starts[1]] + last * scans + EOI


def several_scans(image: Image.Image) -> bytes:
    """A baseline JPEG with one scan for each component: the scans of three grey ones."""
    parts = [saved(band, "JPEG", quality=75) for band in image.convert("YCbCr").split()]
    first = parts[0]
    frame = first.index(b"\xff\xc0")
    scan = first.index(b"\xff\xda")
    height, width = image.height, image.width
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    new_frame = segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + components)
    scans = []
    for number, part in enumerate(parts, 1):
        begin = part.index(b"\xff\xda")
        scans.append(segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + part[begin + 10 : -2])
    return first[:frame] + new_frame + first[frame + 13 : scan] + b"".join(scans) + EOI


def multi_picture(image: Image.Image, **options: object) -> bytes:
    """An MPO file, as iPhones and some cameras write: two JPEGs, the first of them the picture."""
    return saved(image, "MPO", save_all=True, append_images=[image.resize((16, 16))], **options)


def sparse_webp(side: int) -> bytes:
    """A WebP of one colour in some 50 bytes."""
    return saved(Image.new("RGB", (side, side)), "WEBP", lossless=True, quality=0, method=0)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture that is neither smooth nor noise."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (24, 32, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)
