"""The report on images as users send them: what each model loses, and whether less than the
baseline."""

import math
from collections.abc import Mapping, Sequence

from bench.report.formats import NOTHING, count, markdown_table, numbers_after_name
from bench.rows.files import MachineResults
from bench.rows.kinds.accuracy import SendingMeasurement
from bench.rows.kinds.session import BASELINE
from bench.rows.packed import unpack_hits
from bench.rows.selection import ModelResult
from bench.statistics.samples import Interval
from cifar10.accuracy import Z_95
from cifar10.paired import mcnemar

_ABOUT = (
    "Copies of {images} test images as users send them: the tile itself as a file, or enlarged to "
    "a photo by a bicubic filter and coded, then decoded and shrunk by the path that the service "
    "uses. Points of accuracy lost against the tile itself, on the same images, with the 95 % "
    "interval of the paired difference; negative: gained. The tile as PNG keeps its pixels, so "
    "what it loses is the test of the method."
)


def as_sent(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """What each model loses on each way of sending, then each model against the baseline."""
    tested = [model for model in models if model.sendings]
    if not tested:
        return ""
    by_model = {model.model: {one.way: one for one in model.sendings} for model in tested}
    ways = list(dict.fromkeys(way for found in by_model.values() for way in found))
    rows = [[way, *(_lost_cell(found.get(way)) for found in by_model.values())] for way in ways]
    header = ["Sent as", *by_model]
    images = " or ".join(sorted({count(one.images) for m in tested for one in m.sendings}))
    parts = [
        _ABOUT.format(images=images),
        markdown_table(header, rows, numbers_after_name(header)),
        *_against_baseline(tested, ways),
    ]
    return "\n\n".join(part.rstrip() for part in parts)


def lost(one: SendingMeasurement) -> Interval:
    """Accuracy on the tiles minus accuracy as sent, in points."""
    clean, hits = (unpack_hits(text, one.images) for text in (one.clean_hits, one.hits))
    test = mcnemar(clean, hits)
    return Interval(test.low * 100, test.high * 100)


def lost_more(one: SendingMeasurement, other: SendingMeasurement) -> tuple[float, Interval] | None:
    """How many points more ``one`` loses than ``other``, with its 95 % interval; None unless both
    saw the same images.

    Each image is worth -2 to 2: what the one lost on it minus what the other did. The interval is
    that of a mean (central limit).
    """
    if (one.way, one.images, one.seed) != (other.way, other.images, other.seed):
        return None
    first, second = (
        unpack_hits(each.clean_hits, each.images).astype(int)
        - unpack_hits(each.hits, each.images).astype(int)
        for each in (one, other)
    )
    differences = (first - second) * 100.0
    mean = float(differences.mean())
    half = Z_95 * float(differences.std(ddof=1)) / math.sqrt(one.images)
    return mean, Interval(mean - half, mean + half)


def _lost_cell(one: SendingMeasurement | None) -> str:
    if one is None:
        return NOTHING
    clean, hits = (unpack_hits(text, one.images) for text in (one.clean_hits, one.hits))
    points = (int(clean.sum()) - int(hits.sum())) / one.images * 100
    interval = lost(one)
    return f"{points:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def _against_baseline(tested: Sequence[ModelResult], ways: Sequence[str]) -> list[str]:
    baseline = next(
        (
            model
            for model in tested
            if model.cost and (model.cost.recipe, model.cost.precision) == (BASELINE, "fp32")
        ),
        None,
    )
    others = [model for model in tested if baseline is not None and model is not baseline]
    if baseline is None or not others:
        return []
    base = {one.way: one for one in baseline.sendings}
    rows = []
    for way in ways:
        cells = []
        for model in others:
            one = next((each for each in model.sendings if each.way == way), None)
            found = lost_more(one, base[way]) if one is not None and way in base else None
            cells.append(_verdict(found))
        rows.append([way, *cells])
    header = ["Sent as", *(model.model for model in others)]
    return [
        f"Points lost more (+) or less (-) than `{baseline.model}`, image by image:",
        markdown_table(header, rows, numbers_after_name(header)),
    ]


def _verdict(found: tuple[float, Interval] | None) -> str:
    if found is None:
        return NOTHING
    mean, interval = found
    word = "less" if interval.high < 0 else "more" if interval.low > 0 else "cannot be told"
    return f"{mean:+.2f} ({interval.low:+.2f} to {interval.high:+.2f}): {word}"
