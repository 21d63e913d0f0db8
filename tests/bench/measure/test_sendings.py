"""Tests of images encoded like user uploads: their pixels, rows and section of the report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.measure.accuracy import predict_classes
from bench.measure.damage import choose_images, measure_sendings
from bench.measure.sendings import SENDINGS, sent
from bench.measure.setup import Setup
from bench.report.sections.sendings import as_sent
from bench.rows.files import Recorder, read_results, read_rows
from bench.rows.kinds.accuracy import SendingMeasurement
from bench.rows.packed import pack_hits, unpack_hits
from bench.rows.selection import select
from cifar10.dataset import Dataset
from cifar10.predictor import CPU_PROVIDER
from cifar10.store import ModelStore
from tests.bench.conftest import add_all, cost, latency, open_on_cpu, text_of

BY_NAME = {sending.name: sending for sending in SENDINGS}


def distance(name: str, images: np.ndarray) -> float:
    """Return the mean absolute difference, in grey levels."""
    return float(np.abs(sent(BY_NAME[name], images).astype(int) - images).mean())


def test_a_png_tile_keeps_its_pixels_and_quality_costs(synthetic: Dataset) -> None:
    images = synthetic.test.images[:20]
    assert (sent(BY_NAME["tile, PNG"], images) == images).all()
    by_quality = [distance(f"tile, JPEG quality {q}", images) for q in (90, 75, 50, 30)]
    assert 0 < by_quality[0] < by_quality[1] < by_quality[2] < by_quality[3]
    assert distance("photo 512 × 512, JPEG quality 90", images) > 0


@pytest.mark.parametrize("sending", SENDINGS, ids=lambda sending: sending.name)
def test_each_way_gives_reproducible_tiles(sending, synthetic: Dataset) -> None:
    images = synthetic.test.images[:4]
    found = sent(sending, images)
    assert (found.shape, found.dtype) == (images.shape, np.uint8)
    assert (found == sent(sending, images, workers=3)).all()
    # Each image has a stream of its own: what stands before it does not change it.
    assert (found[:1] == sent(sending, images[:1])).all()


def test_crops_are_seeded(synthetic: Dataset) -> None:
    crop, images = SENDINGS[-1], synthetic.test.images[:8]
    assert (sent(crop, images) != sent(crop, images, seed=1)).any()


def test_rows_match_a_direct_count(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder
) -> None:
    store = ModelStore(tiny_store)
    setup = Setup(store, synthetic, recorder, open_on_cpu)
    outcome = measure_sendings(setup, ["tiny_a", "nosuch"], images=60)
    assert outcome.measured == ["tiny_a"]
    assert "no model 'nosuch'" in outcome.failed["nosuch"]
    rows = [row.measurement for row in read_rows(recorder.folder / "sending.jsonl")]
    assert [row.way for row in rows] == [one.name for one in SENDINGS]
    chosen = choose_images(synthetic.test, 60)
    predictor = open_on_cpu(store.load("tiny_a"))
    for row in (rows[0], rows[-1]):
        copies = sent(BY_NAME[row.way], chosen.images)
        direct = predict_classes(predictor, copies) == chosen.labels
        assert (unpack_hits(row.hits, 60) == direct).all()
    assert rows[0].hits == rows[0].clean_hits


def test_ctrl_c_keeps_the_ways_that_are_done(
    tiny_store: Path, synthetic: Dataset, recorder: Recorder
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    setup = Setup(ModelStore(tiny_store), synthetic, recorder, open_on_cpu, stop)
    outcome = measure_sendings(setup, ["tiny_a"], images=10)
    assert outcome.interrupted
    assert len(read_rows(recorder.folder / "sending.jsonl")) == 2


def sending(clean: int, kept: int, way: str = "photo") -> SendingMeasurement:
    """Row of 1,000 images: the first ``clean`` are correct, and then the first ``kept``."""
    images = np.arange(1_000)
    return SendingMeasurement(
        CPU_PROVIDER, way, 1_000, 0, pack_hits(images < clean), pack_hits(images < kept)
    )


def test_losses_of_two_models_are_compared(recorder: Recorder) -> None:
    add_all(recorder, "simple_cnn", "a" * 64, cost(), latency(1_000), sending(700, 600),
            sending(700, 700, "PNG"))  # fmt: skip
    add_all(recorder, "compact", "b" * 64, cost("compact"), latency(1_000), sending(900, 890),
            sending(900, 900, "PNG"))  # fmt: skip
    add_all(recorder, "other", "c" * 64, cost("other"), latency(1_000))
    models = select(read_results(recorder.folder.parent)[0].rows)
    text = text_of(as_sent, None, models)
    photo = [line for line in text.splitlines() if line.startswith("| photo")]
    assert photo[0] == "| photo | 1.00 (0.38 to 1.62) | 10.00 (8.14 to 11.86) |"
    assert photo[1].startswith("| photo | -9.00 (")
    assert photo[1].endswith("): less |")
    assert "| PNG | +0.00 (+0.00 to +0.00): not significant |" in text
    assert "other" not in text
    assert text_of(as_sent, None, []) == ""


def test_a_difference_of_losses_is_exact_and_only_of_the_same_images() -> None:
    mean, interval = sending(700, 600).lost_more_than(sending(900, 890))
    assert mean == pytest.approx(9.0)
    values = np.repeat([0.0, 1.0, 0.0, -1.0, 0.0], [600, 100, 190, 10, 100])
    half = 1.959964 * (values * 100).std(ddof=1) / np.sqrt(1_000)
    assert interval.high - mean == pytest.approx(half, rel=1e-6)
    assert sending(700, 600).lost_more_than(replace(sending(900, 890), seed=1)) is None
