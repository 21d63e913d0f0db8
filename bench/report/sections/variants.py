"""Section on int8 and float16 variants: the gain and the loss against their source."""

from collections.abc import Iterator, Sequence
from typing import Final

from bench.report.formats import NOTHING, p_value, percent, significant
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.cost import VariantMeasurement
from bench.rows.selection import ModelResult
from cifar10.paired import PairedTest

_ABOUT: Final = (
    "A variant is made from a model's exported file, without training. It is kept unless it loses "
    "more than 1 point on the validation images; test images decide nothing. Differences are "
    "against the source on the same images (McNemar's test). Size and time of one image (p50; the "
    "mean with an early exit) are the source's divided by the variant's: above 1 the variant is "
    "smaller or faster."
)

_Line = tuple[ModelResult, VariantMeasurement, ModelResult | None]
"""Variant, its row, and its source where that was measured here."""


def variants(shown: Shown) -> Iterator[Block]:
    """One line for each variant that was kept."""
    lines = [
        (model, model.variant, source_of(model, shown.models))
        for model in shown.subjects
        if model.variant is not None
    ]
    if not lines:
        return
    columns: list[Column[_Line]] = [
        words("Variant", lambda line: line[0].model),
        words("Of", lambda line: line[1].record.source),
        Column("Validation, points (95 % interval)", lambda o: _change(o[1].record.validation)),
        Column("p", lambda line: _p(line[1].record.validation), extra=True),
        Column("Same class, validation, %", lambda line: percent(line[1].parity.top1_agreement)),
        Column("Test, points (95 % interval)", lambda line: _change(_on_test(line))),
        Column("p, test", lambda line: _p(_on_test(line)), extra=True),
        Column("Same class, test, %", lambda line: percent(_agreement(line))),
        Column("Times smaller", _smaller),
        Column("Times faster", _faster),
    ]
    yield Table(columns, lines, "variants")
    yield _ABOUT


def source_of(variant: ModelResult, models: Sequence[ModelResult]) -> ModelResult | None:
    """Return the very file it was made from, on the same provider; None where it is not here."""
    if variant.variant is None:
        return None
    record = variant.variant.record
    wanted = (record.source, record.source_sha256)
    same_file = [model for model in models if (model.model, model.digest) == wanted]
    return next((model for model in same_file if variant.provider in (None, model.provider)), None)


def _on_test(line: _Line) -> PairedTest | None:
    model, _, source = line
    return source.against(model) if source is not None else None


def _change(test: PairedTest | None) -> str:
    """Return the variant's gain over its source, which is the test's first."""
    if test is None:
        return NOTHING
    interval = f"{-test.high * 100:+.2f} to {-test.low * 100:+.2f}"
    return f"{0.0 - test.difference * 100:+.2f} ({interval})"


def _p(test: PairedTest | None) -> str:
    return NOTHING if test is None else p_value(test.p_value)


def _agreement(line: _Line) -> float | None:
    """Return the share of test images on which both predict the same class."""
    variant, _, source = line
    if source is None or source.dataset != variant.dataset:
        return None
    one = source.accuracy.classes if source.accuracy else None
    other = variant.accuracy.classes if variant.accuracy else None
    if one is None or other is None or one.size != other.size:
        return None
    return float((one == other).mean())


def _smaller(line: _Line) -> str:
    _, found, source = line
    size = source.cost.size_bytes if source is not None and source.cost is not None else None
    return significant(size / found.size_bytes if size is not None else None)


def _faster(line: _Line) -> str:
    model, _, source = line
    before, after = source.typical_latency_ms if source else None, model.typical_latency_ms
    return significant(before / after if before is not None and after else None)


SECTIONS: Final = (
    Section(52, "Variants at another precision", "int8 and float16 against float32", variants),
)
