"""The path of a user's own images beside the released models: three models of three data sets and
sizes are trained or taken, exported, served together, asked, measured and reported."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image, ImageDraw

from bench.rows.files import read_results
from bench.rows.kinds.accuracy import AccuracyMeasurement
from cifar10.card import ModelCard
from cifar10.commands.main import main
from cifar10.data.photographs import PHOTO_LABELS
from cifar10.dataset import load_dataset
from cifar10.images import decode_image
from cifar10.store import ModelStore
from tests.service.server import Server

ROOT = Path(__file__).parent.parent
CORNERS = {"circle": 60, "square": 4, "Dreieck △": 3}
OWN = "shapes_simple_cnn"
NAMES = ("compact_int8", "photo_int8", OWN)

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def draw(folder: Path, labels: dict[str, int], count: int) -> Path:
    """Draw so many pictures of a shape for each label, which names its corners."""
    random = np.random.default_rng(0)
    for label, corners in labels.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            width, height = random.integers(60, 160, 2).tolist()
            colours = [tuple(random.integers(0, 256, 3).tolist()) for _ in range(2)]
            picture = Image.new("RGB", (width, height), colours[0])
            circle = (width / 2, height / 2, 0.4 * min(width, height))
            ImageDraw.Draw(picture).regular_polygon(circle, corners, number * 7, colours[1])
            picture.save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """Return the released models in a store of the test's own; photo's photographs are drawn."""
    models = tmp_path / "models"
    for name in ("compact_int8", "photo_int8"):
        shutil.copytree(ROOT / "models" / name, models / name)
    pictures = draw(tmp_path / "photographs", dict.fromkeys(PHOTO_LABELS, 5), 12)
    store = ModelStore(models)
    card = store.card("photo_int8")
    drawn = load_dataset(str(pictures), shape=card.image_shape, fit=card.fit).record
    path = models / "photo_int8" / "card.json"
    path.write_text(path.read_text().replace(card.dataset.fingerprint, drawn.fingerprint))
    monkeypatch.setenv("CIFAR10_MODELS", str(models))
    monkeypatch.setenv("CIFAR10_DATA", "synthetic")
    return store


@pytest.fixture
def served(store: ModelStore, tmp_path: Path) -> Iterator[str]:
    """Train and export the user's model; serve it with the others."""
    shapes = str(draw(tmp_path / "shapes", CORNERS, 20))
    assert main(["train", "simple_cnn", "--data", shapes, "--size", "64", "--epochs", "2"]) == 0
    assert main(["export", OWN]) == 0
    server = Server(tmp_path, store.root, CIFAR10_DEFAULT_MODEL=OWN)
    try:
        server.wait_until_ready()
        yield server.url
    finally:
        server.kill()


def ask(url: str, card: ModelCard, image: bytes) -> set[str]:
    """Return the classes that all ways of asking give for one image."""
    with httpx.Client(base_url=url, params={"model": card.name}, timeout=60) as client:
        one = client.post("/classify", content=image)
        many = client.post("/classify/batch", files=[("image", image)] * 2)
    pixels = decode_image(image, target=card.target)[np.newaxis]
    tensor = triton.InferInput("image", pixels.shape, "UINT8")
    tensor.set_data_from_numpy(pixels)
    with triton.InferenceServerClient(url.removeprefix("http://")) as inference:
        (row,) = inference.infer(card.name, [tensor]).as_numpy("probabilities")
    assert one.json()["model"] == card.name
    batch = {answer["label"] for answer in many.json()["predictions"]}
    return {one.json()["label"], card.labels[int(row.argmax())], *batch}


def test_own_images_beside_the_released_models(
    served: str, store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = store.card(OWN)
    assert (card.image_shape, card.labels) == ((64, 64, 3), tuple(sorted(CORNERS)))
    assert card.parity.top1_agreement == 1.0
    for name in NAMES:
        image = (tmp_path / "shapes" / "circle" / "0.png").read_bytes()
        assert len(ask(served, store.card(name), image)) == 1, name

    results = tmp_path / "results"
    assert main(["bench", "run", *NAMES, "--quick", "--results", str(results)]) == 0
    (here,) = read_results(results)
    measured = {
        row.model: row.dataset.name
        for row in here.rows
        if isinstance(row.measurement, AccuracyMeasurement) and row.dataset is not None
    }
    assert measured == dict(zip(NAMES, ("cifar10", "photographs", "shapes"), strict=True))

    places = ["--results", str(results), "--output", str(tmp_path)]
    assert main(["report", *places]) == 0
    report = (tmp_path / "REPORT.md").read_text()
    for name, dataset in measured.items():
        assert name in report
        assert dataset in report
    capsys.readouterr()
    assert main(["report", "--check", *places]) == 0
