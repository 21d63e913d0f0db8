"""The report's section on int8 and float16 variants: what each costs and gains over its source."""

from collections.abc import Mapping, Sequence
from typing import Final

from bench.report.formats import (
    NOTHING,
    markdown_table,
    numbers_after_name,
    percent,
    significant,
)
from bench.report.recommend import paired_test
from bench.rows.files import MachineResults
from bench.rows.packed import unpack_classes
from bench.rows.selection import ModelResult
from cifar10.paired import PairedTest

_WHY: Final = (
    "A variant is made from the exported file of a model, without training. Whether it is kept is "
    "decided on the validation images: one that loses more than 1 point there is refused. The test "
    "images are looked at afterwards and decide nothing. Differences are of the variant against "
    "its source on the same images, with McNemar's test. Size and the time for one image (p50; the "
    "mean with an early exit) are the source's divided by the variant's: above 1 the variant is "
    "smaller, or faster."
)

_HEADER: Final = [
    "Variant",
    "Of",
    "Validation, points (95 % interval)",
    "p",
    "Same class, validation, %",
    "Test, points (95 % interval)",
    "p, test",
    "Same class, test, %",
    "Size, times smaller",
    "One image, times faster",
    "Kept",
]


def variants(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """One line a variant and provider, in the order given."""
    rows = [_line(model, models) for model in models if model.variant is not None]
    if not rows:
        return ""
    return f"{_WHY}\n\n" + markdown_table(
        _HEADER, rows, numbers_after_name(_HEADER, ("Of", "Kept"))
    )


def source_of(variant: ModelResult, models: Sequence[ModelResult]) -> ModelResult | None:
    """The very file that it was made from, on the same provider; None where it is not here."""
    if variant.variant is None:
        return None
    record = variant.variant.record
    same_file = [
        model
        for model in models
        if (model.model, model.digest) == (record.source, record.source_sha256)
    ]
    return next((model for model in same_file if variant.provider in (None, model.provider)), None)


def _line(model: ModelResult, models: Sequence[ModelResult]) -> list[str]:
    found = model.variant
    if found is None:
        return []
    source = source_of(model, models)
    on_test = paired_test(source, model) if source is not None else None
    size = source.cost.size_bytes if source is not None and source.cost is not None else None
    before = source.typical_latency_ms if source is not None else None
    after = model.typical_latency_ms
    return [
        model.model,
        found.record.source,
        *_change(found.record.validation),
        percent(found.parity.top1_agreement),
        *_change(on_test),
        percent(_agreement(source, model)),
        significant(size / found.size_bytes if size is not None else None),
        significant(before / after if before is not None and after else None),
        f"no: {found.refused}" if found.refused else "yes",
    ]


def _change(test: PairedTest | None) -> tuple[str, str]:
    """What the variant gains over its source, and how likely so uneven a split is by chance."""
    if test is None:
        return NOTHING, NOTHING
    interval = f"{-test.high * 100:+.2f} to {-test.low * 100:+.2f}"
    p = "< 0.0001" if test.p_value < 1e-4 else significant(test.p_value, 2)
    return f"{0.0 - test.difference * 100:+.2f} ({interval})", p


def _agreement(source: ModelResult | None, variant: ModelResult) -> float | None:
    """The share of test images on which both name the same class."""
    one, other = source.accuracy if source is not None else None, variant.accuracy
    if one is None or other is None or source is None or source.dataset != variant.dataset:
        return None
    if one.top1.count != other.top1.count or not (one.predictions and other.predictions):
        return None
    return float((unpack_classes(one.predictions) == unpack_classes(other.predictions)).mean())
