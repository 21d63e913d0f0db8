"""Section on images as users send them: the accuracy lost on each way of sending."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from bench.report.formats import NOTHING, count
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.accuracy import SendingMeasurement
from bench.rows.kinds.session import BASELINE
from bench.rows.selection import ModelResult

_ABOUT: Final = (
    "Copies of {images} test images as users send them: the tile itself as a file, or enlarged to "
    "a photo by a bicubic filter, encoded, and then decoded and shrunk as the service does it. "
    "Points of accuracy lost against the tile, on the same images, with the 95 % interval of the "
    "paired difference; negative means gained. A tile sent as PNG keeps its pixels, so its loss "
    "checks the method."
)


def as_sent(shown: Shown) -> Iterator[Block]:
    """Accuracy lost on each way of sending, then each model against the baseline."""
    tested = {model.model: model for model in shown.subjects if model.sendings}
    if not tested:
        return
    ways = list(dict.fromkeys(one.way for model in tested.values() for one in model.sendings))
    images = " or ".join(sorted({count(one.images) for m in tested.values() for one in m.sendings}))
    way: Column[str] = words("Sent as", str)
    lost = [Column(name, partial(_lost, one)) for name, one in tested.items()]
    yield Table([way, *lost], ways, "as-sent")
    yield _ABOUT.format(images=images)
    baseline = next(
        (one for one in tested.values() if (one.recipe, one.precision) == (BASELINE, "fp32")), None
    )
    others = [model for model in tested.values() if model is not baseline]
    if baseline is None or not others:
        return
    yield f"Points lost compared with `{baseline.model}`, image by image (+ is more):"
    columns = [Column(model.model, partial(_against, model, baseline)) for model in others]
    yield Table([way, *columns], ways, "as-sent-compared")


def _way(model: ModelResult, way: str) -> SendingMeasurement | None:
    return next((one for one in model.sendings if one.way == way), None)


def _lost(model: ModelResult, way: str) -> str:
    one = _way(model, way)
    if one is None:
        return NOTHING
    test = one.lost
    return f"{test.difference * 100:.2f} ({test.low * 100:.2f} to {test.high * 100:.2f})"


def _against(model: ModelResult, baseline: ModelResult, way: str) -> str:
    one, base = _way(model, way), _way(baseline, way)
    found = one.lost_more_than(base) if one is not None and base is not None else None
    if found is None:
        return NOTHING
    mean, interval = found
    word = "less" if interval.high < 0 else "more" if interval.low > 0 else "not significant"
    return f"{mean:+.2f} ({interval.low:+.2f} to {interval.high:+.2f}): {word}"


SECTIONS: Final = (
    Section(28, "Images as users send them", "files and photos instead of tiles", as_sent),
)
