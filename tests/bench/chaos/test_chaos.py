"""The trials of ``bench chaos``: short ones on a real server, and what they are made of."""

import dataclasses
import io
import random
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from bench.chaos.inputs import Fuzzer, bombs, damage
from bench.chaos.large import HEIGHT, WIDTH, decode_whole, photos_of
from bench.chaos.run import TRIALS, _growth, hurt_service
from bench.chaos.trial import ChaosPlan, Trial
from bench.commands.arguments import CHAOS_TRIALS
from bench.report.sections.chaos import chaos
from bench.rows.files import Recorder, read_results, read_rows
from bench.rows.kinds.chaos import ChaosMeasurement
from cifar10.errors import BenchError
from cifar10.images import decode_image

QUICK = ChaosPlan(
    workers=2, kills=1, reloads=1, inputs=140, soak_seconds=2, large_images=1, large_rounds=1
)


def test_the_command_line_names_every_trial() -> None:
    assert tuple(TRIALS) == CHAOS_TRIALS


def test_inputs_are_the_same_each_time_and_of_every_kind() -> None:
    one, again, other = Fuzzer(1), Fuzzer(1), Fuzzer(2)
    numbers = range(70)
    made = [one.request(number) for number in numbers]
    assert made == [again.request(number) for number in numbers]
    assert made != [other.request(number) for number in numbers]
    kinds = Counter(request.kind for request in made)
    assert len(kinds) == 7
    assert set(kinds.values()) == {10}
    for request in (*made, *bombs()):
        head, _, body = request.bytes_for("h").partition(b"\r\n\r\n")
        assert body == request.body
        assert f"Content-Length: {len(body)}".encode() in head


def test_damage_changes_what_it_is_given() -> None:
    chance = random.Random(0)
    data = bytes(range(256))
    damaged = [damage(data, chance) for _ in range(200)]
    assert sum(one != data for one in damaged) > 190
    assert any(len(one) < len(data) for one in damaged)
    assert any(len(one) > len(data) for one in damaged)


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


def test_growth_is_from_the_second_quarter_to_the_last() -> None:
    """What is fetched once, at the beginning, is not growth; what comes with each input is."""

    def growth_of(*sizes: int) -> float:
        memory = [(float(at), size) for at, size in enumerate(sizes)]
        return _growth(cast(Trial, SimpleNamespace(memory=memory)))

    assert growth_of(100, 200, 300, 300, 300, 300, 300, 300) == 0
    assert growth_of(100, 110, 120, 130, 140, 150, 160, 170) == pytest.approx(0.32)
    assert growth_of(100) == 0
    assert growth_of(100, 150) == pytest.approx(0)


def test_an_unknown_trial_is_named(tiny_store: Path, recorder: Recorder) -> None:
    with pytest.raises(BenchError, match="no trial 'flood'; there are: kill"):
        hurt_service(tiny_store, "tiny_a", ["flood"], recorder, QUICK)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")
def test_trials_leave_rows_that_the_report_shows(tiny_store: Path, recorder: Recorder) -> None:
    trials = ["kill", "reload", "fuzz", "soak"]
    outcome = hurt_service(tiny_store, "tiny_a", trials, recorder, QUICK, device="cpu")
    assert outcome.measured == trials, outcome.failed
    rows = {
        row.measurement.trial: row.measurement
        for row in read_rows(recorder.folder / "chaos.jsonl")
        if isinstance(row.measurement, ChaosMeasurement)
    }
    assert list(rows) == trials
    fuzz = rows["fuzz"]
    assert sum(fuzz.status_counts.values()) == fuzz.figures["inputs"] == QUICK.inputs
    assert fuzz.holds
    assert len(fuzz.memory_bytes) > 2
    assert rows["reload"].status_counts.keys() == {"200"}
    assert rows["reload"].figures["wrong"] == 0
    killed = rows["kill"].figures
    assert killed["failed_requests"] <= killed["connections_of_the_killed"]
    # The model that was given is as it was: trials have a copy.
    (results,) = read_results(recorder.folder.parent)
    text = chaos(results, [], {})
    assert "| Workers killed under load (`kill -9`) | tiny_a | 2 |" in text
    assert f"inputs {QUICK.inputs}" in text
    broken = dataclasses.replace(fuzz, holds=False)
    recorder.add("tiny_a", "", None, broken)
    (results,) = read_results(recorder.folder.parent)
    assert "**no**" in chaos(results, [], {})
