"""Tests of hostile inputs: reproducible, of every kind, and damaged in the intended part."""

import io
import json
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from bench.chaos import fuzz
from bench.chaos.bombs import bombs
from bench.chaos.damage import damage, damage_document, damage_head, damage_image
from bench.chaos.inputs import Fuzzer, each
from bench.chaos.large import HEIGHT, WIDTH, decode_whole, photos_of
from bench.chaos.mpo import phone_picture
from bench.chaos.pictures import (
    join,
    multi_picture,
    multi_scan_baseline,
    progressive_bomb,
    segments,
    tiny_webp,
)
from bench.chaos.raw import request_bytes
from bench.chaos.structure_bombs import bodies
from cifar10.images import decode_image


def test_inputs_are_the_same_each_time_and_of_every_kind() -> None:
    one, again, other = Fuzzer(1, "m"), Fuzzer(1, "m"), Fuzzer(2, "m")
    made = [made for _, made in each(one, 0, 140)]
    assert made == [again.input(number) for number in range(140)]
    assert made != [other.input(number) for number in range(140)]
    kinds = Counter(input_.kind for input_ in made)
    assert len(kinds) == 13
    assert set(kinds.values()) == {10, 20}


def test_well_formed_inputs_have_a_valid_head() -> None:
    made = list(fuzz.well_formed(Fuzzer(3, "m"), 100))
    assert len(made) == 100
    for input_ in (*made, *bombs("m")):
        head, _, body = input_.content.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head


def test_damage_changes_its_input() -> None:
    chance = random.Random(0)
    data = bytes(range(256))
    damaged = [damage(data, chance) for _ in range(200)]
    assert sum(one != data for one in damaged) > 190
    assert any(len(one) < len(data) for one in damaged)
    assert any(len(one) > len(data) for one in damaged)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})]
)
def test_damage_to_an_image_keeps_its_signature_and_often_lets_it_be_decoded(kind, options) -> None:
    chance = random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    image = stream.getvalue()
    damaged = [damage_image(image, chance) for _ in range(100)]
    assert sum(one != image for one in damaged) > 80
    assert all(one[:2] == image[:2] for one in damaged)
    decodable = 0
    for one in damaged:
        try:
            decode_image(one)
            decodable += 1
        except Exception:  # refused, which is what most of it is for
            continue
    assert decodable > 5


def test_damage_to_a_document_leaves_one_that_can_be_written() -> None:
    chance = random.Random(0)
    document = {"id": "x", "inputs": [{"name": "image", "shape": [1, 32, 32, 3]}]}
    damaged = [json.dumps(damage_document(document, chance)) for _ in range(200)]
    assert len(set(damaged)) > 100
    assert document == {"id": "x", "inputs": [{"name": "image", "shape": [1, 32, 32, 3]}]}


def test_damage_to_a_head_leaves_the_body() -> None:
    chance = random.Random(0)
    request = request_bytes("POST", "/classify", b"the body")
    for _ in range(100):
        assert damage_head(request, chance).endswith(b"the body")


def test_a_jpeg_is_put_together_from_its_segments() -> None:
    for options in ({}, {"progressive": True}):
        stream = io.BytesIO()
        Image.effect_noise((70, 50), 90).convert("RGB").save(stream, "JPEG", **options)
        assert join(list(segments(stream.getvalue()))) == stream.getvalue()


def test_pictures_cost_more_than_their_bytes() -> None:
    bomb = progressive_bomb(scans=50, side=512)
    assert sum(part.marker == 0xDA for part in segments(bomb)) >= 50
    with Image.open(io.BytesIO(bomb)) as image:
        assert image.info["progressive"]
        image.load()
    baseline = multi_scan_baseline(256)
    assert sum(part.marker == 0xDA for part in segments(baseline)) == 3
    with Image.open(io.BytesIO(baseline)) as image:
        assert not image.info.get("progressive")
        image.load()
    with Image.open(io.BytesIO(tiny_webp(1_000))) as image:
        assert (image.format, image.size) == ("WEBP", (1_000, 1_000))
    with Image.open(io.BytesIO(multi_picture(256))) as image:
        assert image.format == "MPO"
        assert image.n_frames == 2


def test_photos_have_twelve_megapixels_and_the_tile_s_content() -> None:
    tile = np.zeros((32, 32, 3), np.uint8)
    tile[:, 16:] = 200
    (photo,) = photos_of(tile[np.newaxis], seed=0)
    with Image.open(io.BytesIO(photo)) as image:
        assert image.size == (WIDTH, HEIGHT)
        assert image.format == "JPEG"
    for decode in (decode_whole, decode_image):
        found = decode(photo).astype(int)
        assert abs(found[:, :14].mean()) < 10
        assert abs(found[:, 18:].mean() - 200) < 10


def test_an_mpo_picture_is_classified_by_its_first_image() -> None:
    assert decode_image(phone_picture()).shape == (32, 32, 3)


def test_structure_bombs_are_small_and_unpack_to_much() -> None:
    packed = [body for body, headers in bodies() if headers]
    assert sorted(map(len, packed))[0] < 12_000
    assert all(len(body) < 2_500_000 for body, _ in bodies())
