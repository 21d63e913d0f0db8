"""Tests of ``cifar10 predict``: classes without a server."""

import csv
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar10.commands.main import main
from cifar10.images import decode_image
from cifar10.labels import LABELS
from cifar10.openvino_session import OpenVinoSession
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.records import to_json
from cifar10.store import ModelStore
from cifar10.verdict import Calibration
from tests.conftest import add_model, linear_onnx, needs_openvino


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    root = tmp_path / "store"
    for seed, name in enumerate(("compact", "compact_int8")):
        add_model(root, name, linear_onnx(seed))
    monkeypatch.setenv("CIFAR10_MODELS", str(root))
    return ModelStore(root)


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def label(store: ModelStore, model: str, path: Path) -> str:
    predictor = Predictor(store.load(model).onnx, PredictorOptions(device="cpu"))
    return LABELS[predictor.predict(decode_image(path.read_bytes())[None])[0].argmax()]


def test_json_names_the_model_and_each_images_class(store, tmp_path: Path, capsys) -> None:
    paths = [picture(tmp_path / f"{seed}.png", seed) for seed in range(40)]
    assert main(["predict", "--json", *map(str, paths)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "compact_int8"  # the server's default on a CPU
    expected = [label(store, "compact_int8", path) for path in paths]
    assert [one["label"] for one in found["images"]] == expected
    assert all(0.1 <= one["confidence"] <= 1 for one in found["images"])


@needs_openvino
def test_the_engine_of_the_environment_answers(
    store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path = picture(tmp_path / "one.png", 1)
    used = []
    run = OpenVinoSession.run
    monkeypatch.setattr(
        OpenVinoSession, "run", lambda *arguments: used.append(1) or run(*arguments)
    )
    assert main(["predict", "--json", str(path)]) == 0
    assert not used
    monkeypatch.setenv("CIFAR10_ENGINE", "openvino")
    assert main(["predict", "--json", str(path)]) == 0
    assert used
    first, second = capsys.readouterr().out.split("}\n{")
    assert label(store, "compact_int8", path) in first
    assert label(store, "compact_int8", path) in second
    monkeypatch.setenv("CIFAR10_ENGINE", "tvm")
    assert main(["predict", str(path)]) == 1
    assert "expected onnxruntime or openvino" in capsys.readouterr().err


def test_the_verdict_is_that_of_the_cards_thresholds(store, tmp_path: Path, capsys) -> None:
    path = picture(tmp_path / "one.png", 1)
    card_file = store.folder("compact_int8") / "card.json"
    for sure, verdict in ((0.0, "sure"), (1.1, "unsure")):
        calibration = Calibration(1.0, 0.0, "images", 1, sure=sure, likely=sure, rejected=0.0)
        card = dataclasses.replace(store.card("compact_int8"), calibration=calibration)
        card_file.write_text(to_json(card))
        assert main(["predict", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["images"][0]["verdict"] == verdict


def test_a_folder_is_searched_and_a_model_can_be_named(store, tmp_path: Path, capsys) -> None:
    inner = picture(tmp_path / "folder" / "inner" / "a.JPG", 1)
    picture(tmp_path / "folder" / "b.png", 2)
    (tmp_path / "folder" / "notes.txt").write_text("no picture")
    for left_by_system in ("._b.png", "__MACOSX/b.png"):
        path = tmp_path / "folder" / left_by_system
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0\5\x16\7")
    assert main(["predict", str(tmp_path / "folder"), "--csv", "--model", "compact"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [Path(row["image"]).name for row in rows] == ["b.png", "a.JPG"]
    assert rows[1]["label"] == label(store, "compact", inner)


def test_auto_asks_the_model_of_photographs_about_large_images(
    store, tmp_path: Path, capsys
) -> None:
    labels = (*LABELS, "none")
    shape = (96, 96, 3)
    add_model(store.root, "photo", linear_onnx(5, shape, 11), labels=labels, fit="crop")
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    picture(small, 1)  # 64 × 48
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (80, 200, 3), np.uint8)).save(large)
    assert main(["predict", "--json", str(small), str(large)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "auto"
    assert [one["model"] for one in found["models"]] == ["compact_int8", "photo"]
    assert [one["model"] for one in found["images"]] == ["compact_int8", "photo"]
    stored = store.load("photo")
    image = decode_image(large.read_bytes(), target=stored.card.target)[None]
    row = Predictor(stored.onnx, PredictorOptions(device="cpu")).predict(image)[0]
    assert found["images"][1]["label"] == labels[row.argmax()]
    assert found["images"][0]["label"] == label(store, "compact_int8", small)
    assert main(["predict", "--json", str(large), "--model", "compact"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["images"][0]["model"]) == ("compact", "compact")


def test_a_model_of_own_classes_answers_with_its_labels(store, tmp_path: Path, capsys) -> None:
    labels = ("Gänseblümchen", "バラ", "tulip")
    add_model(store.root, "flowers", linear_onnx(5, (64, 64, 3), 3), labels=labels)
    path = picture(tmp_path / "a.png", 1)
    assert main(["predict", "--json", str(path), "--model", "flowers"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["label"] in labels


def test_what_cannot_be_read_is_reported_and_the_rest_classified(
    store, tmp_path: Path, capsys
) -> None:
    good = picture(tmp_path / "good.png", 3)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nno")
    assert main(["predict", str(bad), str(good), str(tmp_path / "none.jpg")]) == 3
    shown = capsys.readouterr()
    assert "good.png" in shown.out
    assert "bad.png" not in shown.out
    first, second = shown.err.splitlines()
    assert first.startswith(f"error: {bad}: ")
    assert second == f"error: {tmp_path / 'none.jpg'}: No such file or directory"


def test_no_image_and_no_model_are_one_line(
    store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(tmp_path / "empty")]) == 1
    monkeypatch.setenv("CIFAR10_MODELS", str(tmp_path / "empty"))
    assert main(["predict", str(picture(tmp_path / "a.png", 1))]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "no image found" in lines[0]
    assert "no default model; it is empty" in lines[1]
    assert len(lines) == 2


def test_predict_needs_no_server_and_no_training_framework(store, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 1)
    code = (
        "import sys; from cifar10.commands.main import main; "
        f"main(['predict', {str(path)!r}]); "
        "print(sorted(set(sys.modules) & {'bentoml', 'keras', 'tensorflow', 'bench', 'service'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
