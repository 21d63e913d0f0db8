"""The part of ``cifar10 predict --ray``: lists of images, progress and the closing line."""

from collections.abc import Sequence
from pathlib import Path

from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from cifar10.commands.command import FAILED, OK
from cifar10.commands.terminal import errors, output
from cifar10.on_ray.scoring import score
from cifar10.predictor import Device
from cifar10.store import ModelStore


def listed(places: Sequence[Path]) -> tuple[Path, ...]:
    """Return the places, with each .txt file replaced by the images that it lists, one per line."""
    found: list[Path] = []
    for place in places:
        if place.suffix.lower() == ".txt":
            lines = map(str.strip, place.read_text().splitlines())
            found += [place.parent / line for line in lines if line]
        else:
            found.append(place)
    return tuple(found)


def score_files(
    paths: Sequence[Path],
    store: ModelStore,
    model: str | None,
    out: Path,
    address: str,
    device: Device,
) -> int:
    """Classify the files on the cluster and return the exit code."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors()) as bar:
        task = bar.add_task("classifying", total=len(paths))

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        found = score(paths, store, model, out, address=address, device=device, progress=show)
    output().print(
        f"{found.files:,} images in {out}, {found.found_before:,} of them from an earlier run; "
        f"{found.unreadable:,} could not be read",
        highlight=False,
        soft_wrap=True,
    )
    return FAILED if found.unreadable else OK
