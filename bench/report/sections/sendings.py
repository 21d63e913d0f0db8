"""Section on images as users send them: what each model loses, and whether less than the
baseline."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from bench.report.formats import NOTHING, count
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.accuracy import SendingMeasurement
from bench.rows.kinds.session import BASELINE
from bench.rows.selection import ModelResult

_ABOUT = (
    "Copies of {images} test images as users send them: the tile itself as a file, or enlarged to "
    "a photo by a bicubic filter and coded, then decoded and shrunk by the path that the service "
    "uses. Points of accuracy lost against the tile itself, on the same images, with the 95 % "
    "interval of the paired difference; negative: gained. The tile as PNG keeps its pixels, so "
    "what it loses is the test of the method."
)


def as_sent(shown: Shown) -> Iterator[Block]:
    """What each model loses on each way of sending, then each model against the baseline."""
    tested = {model.model: model for model in shown.models if model.sendings}
    if not tested:
        return
    ways = list(dict.fromkeys(one.way for model in tested.values() for one in model.sendings))
    images = " or ".join(sorted({count(one.images) for m in tested.values() for one in m.sendings}))
    yield _ABOUT.format(images=images)
    way: Column[str] = words("Sent as", str)
    yield Table(
        [way, *(Column(name, partial(_lost, model)) for name, model in tested.items())], ways
    )
    baseline = _baseline(list(tested.values()))
    others = [model for model in tested.values() if baseline is not None and model is not baseline]
    if baseline is None or not others:
        return
    yield f"Points lost more (+) or less (-) than `{baseline.model}`, image by image:"
    yield Table(
        [way, *(Column(model.model, partial(_against, model, baseline)) for model in others)], ways
    )


def _baseline(tested: Sequence[ModelResult]) -> ModelResult | None:
    found = (one for one in tested if (one.recipe, one.precision) == (BASELINE, "fp32"))
    return next(found, None)


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
    word = "less" if interval.high < 0 else "more" if interval.low > 0 else "cannot be told"
    return f"{mean:+.2f} ({interval.low:+.2f} to {interval.high:+.2f}): {word}"


SECTIONS: Final = (Section(220, "Images as users send them", as_sent),)
