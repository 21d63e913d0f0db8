"""Classify images without a server.

Accepts JPEG, PNG and WebP files, and folders, which are searched for such files. An image that
cannot be read is reported, the others are classified, and the exit code is then 3. Without --model,
the server's default model is used.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cifar10.commands import options
from cifar10.commands.command import FAILED, OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import errors, print_json, print_table, say_error
from cifar10.environment import models_dir as default_models_dir
from cifar10.errors import ImageError, ModelNotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cifar10.predictor import Device, Predictor
    from cifar10.store import ModelStore

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes of the files read from a folder, in upper or lower case. A file given by name is always
read."""
_BATCH: Final = 32
_MANY: Final = 20
"""Number of images from which a progress bar is shown on a terminal."""


@dataclass(frozen=True)
class Answer:
    """One image's class, or the reason why it has none."""

    image: str
    label: str | None
    confidence: float | None
    """Probability of the label, 0–1."""
    error: str | None = None


@make_command(
    __name__,
    __doc__,
    """\
cifar10 predict photo.jpg
cifar10 predict photo.jpg holiday/ --model compact
cifar10 predict holiday/ --csv
cifar10 predict photo.jpg --json
""",
    """\
Exit codes:
  0    every image was classified
  1    an error, in one line
  3    an image could not be read; the others were classified
""",
)
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE|FOLDER...", type=click.Path(path_type=Path)
)
@click.option("--model", type=options.ModelName(), help="Model to use (default: the server's).")
@options.store
@options.device
@options.as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
def command(
    images: tuple[Path, ...],
    model: str | None,
    models_dir: Path | None,
    device: "Device",
    as_json: bool,
    as_csv: bool,
) -> int:
    """Classify the images and print their classes."""
    if as_json and as_csv:
        message = "--json and --csv cannot be used together"
        raise click.UsageError(message)
    paths = list(_image_files(images))
    if not paths:
        places = ", ".join(map(str, images))
        message = f"no image found in {places}; looked for *{', *'.join(SUFFIXES)}"
        raise ImageError(message)
    from cifar10.predictor import Predictor, PredictorOptions, likely_device
    from cifar10.store import ModelStore

    store = ModelStore(models_dir or default_models_dir())
    name = model or _default(store, likely_device(device))
    stored = store.load(name)
    predictor = Predictor(stored.onnx, PredictorOptions(device=device))
    predictor.check_card(stored.card)
    answers = _classify(predictor, stored.card.labels, paths)
    if as_json:
        print_json(
            {
                "model": name,
                "sha256": stored.card.sha256,
                "images": [vars(answer) for answer in answers],
            }
        )
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("image", "label", "confidence", "error"))
        writer.writerows(
            (one.image, one.label or "", _exact(one.confidence), one.error or "") for one in answers
        )
    else:
        shown = [one for one in answers if one.error is None]
        if shown:
            print_table(
                ["image", "class", "confidence"],
                [[one.image, one.label or "", _percent(one.confidence)] for one in shown],
                right=("confidence",),
            )
    failed = [one for one in answers if one.error is not None]
    for one in failed:
        say_error(f"{one.image}: {one.error}")
    return FAILED if failed else OK


def _image_files(places: Sequence[Path]) -> Iterator[Path]:
    """Yield the files named, and the images in the folders named, sorted."""
    for place in places:
        if not place.is_dir():
            yield place
            continue
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path


def _default(store: "ModelStore", device: str) -> str:
    from cifar10.released import default_model

    names = store.names()
    found = default_model(names, "cuda" if device == "cuda" else "cpu")
    if found is None:
        there = f"choose one with --model: {', '.join(names)}" if names else "it is empty"
        message = f"{store.root} has no default model; {there}"
        raise ModelNotFoundError(message)
    return found


def _classify(predictor: "Predictor", labels: Sequence[str], paths: Sequence[Path]) -> list[Answer]:
    """Return an answer for each path, in order."""
    from rich.progress import Progress

    answers = []
    console = errors()
    with Progress(
        console=console, transient=True, disable=len(paths) < _MANY or not console.is_terminal
    ) as bar:
        task = bar.add_task("classifying", total=len(paths))
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            answers += _classify_batch(predictor, labels, batch)
            bar.advance(task, len(batch))
    return answers


def _classify_batch(
    predictor: "Predictor", labels: Sequence[str], paths: Sequence[Path]
) -> list[Answer]:
    import numpy as np

    read = [_read(path) for path in paths]
    tiles = [tile for tile in read if not isinstance(tile, str)]
    probabilities = iter(predictor.predict(np.stack(tiles)) if tiles else ())
    answers = []
    for path, tile in zip(paths, read, strict=True):
        if isinstance(tile, str):
            answers.append(Answer(str(path), None, None, tile))
            continue
        found: NDArray[np.float32] = next(probabilities)
        best = int(found.argmax())
        answers.append(Answer(str(path), labels[best], round(float(found[best]), 6)))
    return answers


def _read(path: Path) -> "NDArray[np.uint8] | str":
    """Return the image as the model's input, uint8 (32, 32, 3), or why it cannot be read."""
    from cifar10.images import DEFAULT_LIMITS, decode_image

    try:
        with path.open("rb") as file:
            return decode_image(file.read(DEFAULT_LIMITS.max_bytes + 1))
    except ImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _percent(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.1%}"


def _exact(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.6f}"
