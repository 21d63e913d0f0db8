"""Classify images without a server.

Accepts JPEG, PNG, WebP, AVIF, GIF and BMP files, HEIC files with the extra `heic`, and folders,
which are searched for such files. An image that cannot be read is reported, the others are
classified, and the exit code is then 3.
Without --model, the server's default model is used. If the store has a model of photographs, that
is "auto": the model of photographs for large images, another model for small ones.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Literal

import click

from cifar10.commands import options
from cifar10.commands.command import FAILED, OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import errors, print_json, print_table, say_error
from cifar10.environment import engine as chosen_engine
from cifar10.environment import models_dir as default_models_dir
from cifar10.errors import ImageError, ModelNotFoundError
from cifar10.members import is_left_by_system

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cifar10.environment import Engine
    from cifar10.predictor import Device, Predictor
    from cifar10.released import AutoRule
    from cifar10.store import ModelStore, StoredModel
    from cifar10.verdict import Verdict

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".heic", ".heif")
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
    verdict: "Verdict | None" = None
    """How far the answer can be trusted; None if the model's card has no thresholds."""
    error: str | None = None
    model: str | None = None
    """The model that answered."""


@make_command(
    __name__,
    __doc__,
    """\
cifar10 predict photo.jpg
cifar10 predict photo.jpg holiday/ --model compact
cifar10 predict holiday/ --csv
cifar10 predict photo.jpg --json
cifar10 predict pictures/ --ray --out answers.parquet      many images, on a Ray cluster
cifar10 predict paths.txt --ray 10.0.0.1:6379 --out answers.parquet
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
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Use the Ray cluster at ADDRESS (without one: this machine's cores). A .txt file then "
    "lists images, one a line.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the Parquet files of --ray; an interrupted run continues.",
)
def command(
    images: tuple[Path, ...],
    model: str | None,
    models_dir: Path | None,
    device: "Device",
    as_json: bool,
    as_csv: bool,
    ray: str | None,
    out: Path | None,
) -> int:
    """Classify the images and print their classes."""
    if as_json and as_csv:
        message = "--json and --csv cannot be used together"
        raise click.UsageError(message)
    if (ray is None) != (out is None):
        message = "--ray and --out are used together"
        raise click.UsageError(message)
    if ray is not None:
        from cifar10.commands.predict_ray import listed, score_files

        images = listed(images)
    paths = list(image_files(images))
    if not paths:
        places = ", ".join(map(str, images))
        message = f"no image found in {places}; looked for *{', *'.join(SUFFIXES)}"
        raise ImageError(message)
    from cifar10.predictor import likely_device
    from cifar10.released import AUTO
    from cifar10.store import ModelStore

    store = ModelStore(models_dir or default_models_dir())
    if ray is not None and out is not None:
        return score_files(paths, store, model, out, ray, device)
    engine = chosen_engine()
    asked = Asked(store, *chosen(store, model, likely_device(device, engine)), device, engine)
    answers = _classify_showing(asked, paths)
    if as_json:
        shown_models = [
            {"model": name, "sha256": stored.card.sha256}
            for name, (stored, _) in sorted(asked.opened.items())
        ]
        said = {"model": AUTO, "models": shown_models} if asked.rule else shown_models[0]
        print_json({**said, "images": [vars(answer) for answer in answers]})
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("image", "label", "confidence", "verdict", "error", "model"))
        writer.writerows(
            (
                one.image,
                one.label or "",
                _exact(one.confidence),
                one.verdict or "",
                one.error or "",
                one.model or "",
            )
            for one in answers
        )
    else:
        shown = [one for one in answers if one.error is None]
        if shown:
            more = ["model"] if asked.rule else []
            print_table(
                ["image", "class", "confidence", "verdict", *more],
                [
                    [one.image, one.label or "", _percent(one.confidence), one.verdict or ""]
                    + [one.model or "" for _ in more]
                    for one in shown
                ],
                right=("confidence",),
            )
    failed = [one for one in answers if one.error is not None]
    for one in failed:
        say_error(f"{one.image}: {one.error}")
    return FAILED if failed else OK


def image_files(places: Sequence[Path]) -> Iterator[Path]:
    """Yield the files named, and the images in the folders named, sorted."""
    for place in places:
        if not place.is_dir():
            yield place
            continue
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            if not is_left_by_system(PurePosixPath(path.relative_to(place).as_posix())):
                yield path


class Asked:
    """The models that may answer, opened when the first image needs them.

    Args:
        store: the models.
        name: the model that answers; None: ``rule`` decides.
        rule: which model answers which image; None: ``name`` answers all.
        device: the device to run on.
        engine: the engine that runs the models.
    """

    def __init__(
        self,
        store: "ModelStore",
        name: str | None,
        rule: "AutoRule | None",
        device: "Device",
        engine: "Engine",
    ) -> None:
        self._store = store
        self._name = name
        self.rule = rule
        self._device = device
        self._engine = engine
        self.opened: dict[str, tuple[StoredModel, Predictor]] = {}
        for needed in rule.names if rule else ():
            store.card(needed)  # so that a broken one is an error whatever the images are
        if name is not None:
            self.open(name)

    def open(self, name: str) -> "tuple[StoredModel, Predictor]":
        """Return an opened and checked model."""
        from cifar10.predictor import Predictor, PredictorOptions

        if name not in self.opened:
            stored = self._store.load(name)
            options = PredictorOptions(device=self._device, engine=self._engine)
            predictor = Predictor(stored.onnx, options)
            predictor.check_card(stored.card)
            self.opened[name] = stored, predictor
        return self.opened[name]

    def probabilities(
        self, paths: Sequence[Path]
    ) -> "list[tuple[StoredModel, NDArray[np.float32]] | str]":
        """Return for each path the model that answers and its probabilities, float32 (classes,);
        or why it cannot be read. Each model runs once."""
        import numpy as np

        read = [self.read(path) for path in paths]
        inputs: dict[str, list[NDArray[np.uint8]]] = {}
        for one in read:
            if not isinstance(one, str):
                inputs.setdefault(one[0], []).append(one[1])
        rows = {
            name: iter(self.open(name)[1].predict(np.stack(images)))
            for name, images in inputs.items()
        }
        return [
            one if isinstance(one, str) else (self.open(one[0])[0], next(rows[one[0]]))
            for one in read
        ]

    def read(self, path: Path) -> "tuple[str, NDArray[np.uint8]] | str":
        """Return the model for the image in ``path``, and the image as its input, uint8 (height,
        width, 3); or why it cannot be read."""
        from cifar10.images import DEFAULT_LIMITS, decode_layout, inspect_image

        try:
            with path.open("rb") as file:
                layout = inspect_image(file.read(DEFAULT_LIMITS.max_bytes + 1))
            if self.rule is not None:
                name = self.rule.choose(layout.width, layout.height)
            else:
                name = str(self._name)
            return name, decode_layout(layout, self.open(name)[0].card.target)
        except ImageError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)


def chosen(
    store: "ModelStore", wanted: str | None, device: "Literal['cpu', 'cuda']"
) -> "tuple[str | None, AutoRule | None]":
    """Return the model to ask, or the rule of ``auto``."""
    from cifar10.released import AUTO, auto_rule, default_model

    names = store.names()
    rule = auto_rule(names, device) if wanted in (None, AUTO) else None
    if rule is not None:
        return None, rule
    found = wanted or default_model(names, device)
    if found is None:
        there = f"choose one with --model: {', '.join(names)}" if names else "it is empty"
        message = f"{store.root} has no default model; {there}"
        raise ModelNotFoundError(message)
    return found, None


def _classify_showing(asked: Asked, paths: Sequence[Path]) -> list[Answer]:
    """Return an answer for each path, in order, and show the progress."""
    from rich.progress import Progress

    answers = []
    console = errors()
    with Progress(
        console=console, transient=True, disable=len(paths) < _MANY or not console.is_terminal
    ) as bar:
        task = bar.add_task("classifying", total=len(paths))
        for answer in classify(asked, paths):
            answers.append(answer)
            bar.advance(task)
    return answers


def classify(asked: Asked, paths: Sequence[Path]) -> Iterator[Answer]:
    """Yield an answer for each path, in order; a model runs on a few images at once, whose
    activations fit into memory."""
    for start in range(0, len(paths), _BATCH):
        yield from _classify_batch(asked, paths[start : start + _BATCH])


def _classify_batch(asked: Asked, paths: Sequence[Path]) -> list[Answer]:
    """Return an answer for each path, from one run of each model."""
    return [
        Answer(str(path), None, None, error=one) if isinstance(one, str) else _answer(path, *one)
        for path, one in zip(paths, asked.probabilities(paths), strict=True)
    ]


def _answer(path: Path, stored: "StoredModel", probabilities: "NDArray[np.float32]") -> Answer:
    best = int(probabilities.argmax())
    label, confidence = stored.card.labels[best], float(probabilities[best])
    calibration = stored.card.calibration
    return Answer(
        str(path),
        label,
        round(confidence, 6),
        calibration.verdict(label, confidence) if calibration else None,
        model=stored.card.name,
    )


def _percent(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.1%}"


def _exact(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.6f}"
