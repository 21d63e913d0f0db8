"""Tests of ``cifar10 bench verdicts``: counts, AUROC and coverage against values by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.measure.verdicts import Judged, judge, summarize
from bench.rows.files import read_results
from bench.rows.kinds.session import FailureMeasurement
from bench.rows.kinds.verdicts import VerdictCounts, VerdictMeasurement
from bench.rows.row import Row
from cifar10.commands.main import main
from cifar10.dataset import load_dataset
from cifar10.images import decode_layout, inspect_image
from cifar10.labels import LABELS
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.records import to_json
from cifar10.store import CARD_FILE, ModelStore
from cifar10.verdict import Calibration
from tests.conftest import add_model, linear_onnx

CALIBRATION = Calibration(1.0, 0.0, "images", 8, sure=0.6, likely=0.45, rejected=0.35)
PHOTO_LABELS = tuple(sorted((*LABELS, "none")))


def set_calibration(store: ModelStore, name: str, **changes: object) -> None:
    card = replace(store.card(name), calibration=CALIBRATION, **changes)
    (store.folder(name) / CARD_FILE).write_text(to_json(card))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """Return a store with the two models of ``auto``."""
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("CIFAR10_DATA", "synthetic")
    store = ModelStore(tmp_path / "models")
    add_model(store.root, "compact_int8", linear_onnx(0))
    shape = (80, 80, 3)
    add_model(store.root, "photo", linear_onnx(1, shape, 11), labels=PHOTO_LABELS, fit="crop")
    for name in store.names():
        set_calibration(store, name)
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return ten photographs of a ship and of nothing, every second one large."""
    random = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "photographs" / ("ship", "none")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        height = 90 if number % 4 < 2 else 40
        Image.fromarray(random.integers(0, 256, (height, 100, 3), np.uint8)).save(path)
    return tmp_path / "photographs"


def rows(results: Path, kind: type = VerdictMeasurement) -> list[Row]:
    (here,) = read_results(results)
    return [row for row in here.rows if isinstance(row.measurement, kind)]


@pytest.mark.parametrize(
    ("labels", "probabilities", "truth", "expected"),
    [
        (("cat", "dog"), (0.7, 0.3), "cat", ("sure", True, True, 0.3, 0.7)),
        (("cat", "dog"), (0.7, 0.3), "dog", ("sure", True, False, 0.3, 0.3)),
        (("cat", "dog"), (0.7, 0.3), "none", ("sure", False, False, 0.3, None)),
        (("cat", "dog"), (0.7, 0.3), "teapot", ("sure", False, False, 0.3, None)),
        # Rejected for its low confidence: right only if the image is of no class.
        (("a", "b", "c"), (0.34, 0.33, 0.33), "a", ("none", True, False, 0.66, 0.34)),
        (("a", "b", "c"), (0.34, 0.33, 0.33), "none", ("none", False, True, 0.66, None)),
        # With a label for it, its probability is the doubt.
        (("cat", "none"), (0.1, 0.9), "none", ("none", False, True, 0.9, 0.9)),
        (("cat", "none"), (0.1, 0.9), "cat", ("none", True, False, 0.9, 0.1)),
        (("cat", "none"), (0.55, 0.45), "cat", ("likely", True, True, 0.45, 0.55)),
    ],
)
def test_an_answer_is_judged(tmp_path, labels, probabilities, truth, expected) -> None:
    graph = linear_onnx(0, classes=len(labels))
    card = replace(add_model(tmp_path, "m", graph, labels=labels), calibration=CALIBRATION)
    one = judge(card, np.array(probabilities, np.float32), truth)
    verdict, is_of_classes, is_right, doubt, true_class = expected
    assert (one.verdict, one.is_of_classes, one.is_right) == (verdict, is_of_classes, is_right)
    assert one.doubt == pytest.approx(doubt)
    assert one.true_class == (None if true_class is None else pytest.approx(true_class))


def test_counts_auroc_coverage_and_calibration_error_by_hand() -> None:
    judged = [
        Judged("sure", True, True, 0.9, 0.1, 0.9),
        Judged("sure", False, False, 0.8, 0.2, None),
        Judged("likely", True, False, 0.7, 0.3, 0.2),
        Judged("none", False, False, 0.3, 0.7, None),
        Judged("unsure", True, True, 0.4, 0.2, 0.4),
    ]
    row = summarize(judged, provider="CPU", asked="m", dataset="d")
    assert row.counts == {
        "sure": VerdictCounts(1, 1, 1),
        "likely": VerdictCounts(1, 0, 0),
        "unsure": VerdictCounts(1, 1, 0),
        "none": VerdictCounts(0, 0, 1),
    }
    assert row.given_and_right("sure") == (2, 1)
    assert row.given_and_right("none") == (1, 1)
    assert row.share("sure") == pytest.approx(1 / 3)
    assert row.share_of_others("sure") == 0.5
    # Doubts of the classes 0.1, 0.2, 0.3, of the others 0.2 (1 below, 1 equal) and 0.7 (3 below).
    assert row.auroc == pytest.approx(4.5 / 6)
    # The most confident is right, the second and third are not, the last two are.
    at = dict(row.coverage)
    assert [at[share] for share in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)] == pytest.approx(
        [1, 1, 1 / 2, 1 / 3, 2 / 4, 3 / 5]
    )
    error = (abs(1 - 0.9) + abs(0 - 0.7) + abs(1 - 0.4)) / 3
    assert row.reliability.expected_calibration_error == pytest.approx(error)


def test_tiles_and_auto_on_them(store, tmp_path, capsys) -> None:
    results = tmp_path / "results"
    assert main(["bench", "verdicts", "auto", "--results", str(results)]) == 0
    assert "auto, 500 images of cifar10: " in capsys.readouterr().out
    own, auto = rows(results)
    stored = store.load("compact_int8")
    test = load_dataset("synthetic").test
    predictor = Predictor(stored.onnx, PredictorOptions(device="cpu"))
    answers = predictor.predict(test.images)
    right = answers.argmax(axis=1) == test.labels
    is_sure = answers.max(axis=1) >= 0.6
    counts = int(is_sure.sum()), int(right[is_sure].sum())
    assert own.measurement.counts["sure"] == VerdictCounts(*counts, 0)
    assert own.measurement.auroc is None
    assert (auto.model, auto.digest) == ("photo", store.card("photo").sha256)
    small = ("compact_int8", stored.card.sha256)
    assert auto.measurement == replace(own.measurement, asked="auto", small=small)
    assert main(["bench", "run", "compact_int8", "--quick", "--results", str(results)]) == 0
    assert rows(results)[-1].measurement == own.measurement


def test_photographs_are_decoded_for_the_model_that_answers(store, folder, tmp_path) -> None:
    results = ["--results", str(tmp_path / "results")]
    assert main(["bench", "verdicts", "--data", str(folder), *results]) == 0
    found = {row.measurement.asked: row for row in rows(tmp_path / "results")}
    assert set(found) == {"compact_int8", "photo", "auto"}
    assert {row.dataset.name for row in found.values()} == {"photographs"}
    counted = dict.fromkeys(("compact_int8", "photo", "auto"), 0)
    predictors = {
        name: Predictor(store.load(name).onnx, PredictorOptions(device="cpu"))
        for name in store.names()
    }
    for path in folder.glob("*/*"):
        layout = inspect_image(path.read_bytes())
        for asked in counted:
            model = asked
            if asked == "auto":
                is_large = min(layout.width, layout.height) >= 64
                model = "photo" if is_large else "compact_int8"
            card = store.card(model)
            answer = predictors[model].predict(decode_layout(layout, card.target)[None])[0]
            one = judge(card, answer, path.parent.name)
            counted[asked] += one.verdict == "sure"
    for asked, row in found.items():
        assert row.measurement.given_and_right("sure")[0] == counted[asked]
        assert (row.measurement.of_classes, row.measurement.of_others) == (10, 10)
        assert row.measurement.chose_thresholds == 0


def test_a_model_of_these_photographs_has_a_row_of_the_test_part(store, folder, tmp_path) -> None:
    data = load_dataset(str(folder), shape=(80, 80, 3), fit="crop")
    dataset = replace(store.card("photo").dataset, fingerprint=data.record.fingerprint)
    set_calibration(store, "photo", dataset=dataset)
    arguments = ["--data", str(folder), "--results", str(tmp_path / "results")]
    assert main(["bench", "verdicts", "photo", *arguments]) == 0
    whole, part = (row.measurement for row in rows(tmp_path / "results"))
    assert (whole.images, whole.total, whole.chose_thresholds) == ("all", 20, 8)
    assert (part.images, part.chose_thresholds) == ("test", 0)
    card = store.card("photo")
    predictor = Predictor(store.load("photo").onnx, PredictorOptions(device="cpu"))
    sure = [
        judge(card, row, data.labels[label]).verdict == "sure"
        for row, label in zip(predictor.predict(data.test.images), data.test.labels, strict=True)
    ]
    assert part.total == len(sure)
    assert part.given_and_right("sure")[0] == sum(sure)


def test_a_model_without_thresholds_says_how_to_choose_them(store, tmp_path, capsys) -> None:
    add_model(store.root, "compact_int8", linear_onnx(0))
    results = tmp_path / "results"
    assert main(["bench", "verdicts", "compact_int8", "--results", str(results)]) == 3
    assert "cifar10 export compact_int8 --thresholds" in capsys.readouterr().err
    (row,) = rows(results, FailureMeasurement)
    assert row.key == "verdicts"


def test_auto_needs_its_pair(store, tmp_path, capsys) -> None:
    store.folder("photo").joinpath(CARD_FILE).unlink()
    assert main(["bench", "verdicts", "auto", "--results", str(tmp_path)]) == 1
    assert "has no pair of models for auto" in capsys.readouterr().err
