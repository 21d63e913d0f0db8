"""Sections on everything that is not released: other measured models, refused variants, models
without weights, and failures."""

from collections.abc import Iterator
from typing import Final

from bench.report.efficiency import efficiency_table
from bench.report.formats import NOTHING, count, millions, significant
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.selection import ModelResult


def not_released(shown: Shown) -> Iterator[Block]:
    """Measured models whose file is not in the store, one line for each recipe."""
    if shown.others:
        table = efficiency_table(shown.others, shown.models)
        yield Table(table.columns, table.rows, "not-released")
        yield (
            "These figures are of files that `models/` does not hold: an earlier export, or a "
            "model that is not released. Several seeds of a recipe are one line, mean ± standard "
            "deviation. `cifar10 train NAME && cifar10 export NAME` makes any of them, "
            "`cifar10 export NAME --int8` its int8 variant."
        )


def refused(shown: Shown) -> Iterator[Block]:
    """Variants that were made and refused, with the reason."""
    columns: list[Column[ModelResult]] = [
        words("Variant", lambda one: f"`{one.model}`"),
        words("Of", lambda one: one.variant.record.source if one.variant else NOTHING),
        Column("Size, MB", lambda one: millions(one.variant.size_bytes if one.variant else None)),
        words("Reason", lambda one: f"it {one.variant.refused}" if one.variant else NOTHING),
    ]
    if shown.refused:
        yield Table(columns, shown.refused, "refused")


def cost_only(shown: Shown) -> Iterator[Block]:
    """Models with random weights: their cost is real, their accuracy means nothing."""

    def cost(field: str, one: ModelResult) -> float | None:
        found: float | None = getattr(one.cost, field, None)
        return found

    columns: list[Column[ModelResult]] = [
        words("Model", lambda one: f"`{one.model}`"),
        Column("p50, ms", lambda one: significant(one.typical_latency_ms)),
        Column("p99, ms", lambda one: significant(one.latency_ms(99))),
        Column("Size, MB", lambda one: millions(cost("size_bytes", one))),
        Column("MACs, M", lambda one: millions(cost("macs", one))),
        Column("Parameters", lambda one: count(cost("parameters_total", one))),
    ]
    if shown.cost_only:
        yield Table(columns, shown.cost_only, "cost-only")
        yield (
            "Their ImageNet weights were not available here, so they were built with random "
            "weights for their cost alone. With internet, `cifar10 train NAME` gets the weights."
        )


def failures(shown: Shown) -> Iterator[Block]:
    """Models with a measurement that failed."""
    columns: list[Column[ModelResult]] = [
        words("Model", lambda one: f"`{one.model}`"),
        words("Reason", lambda one: "; ".join(failure.reason for failure in one.failures)),
    ]
    if shown.failed:
        yield Table(columns, shown.failed, "failures")


SECTIONS: Final = (
    Section(12, "Measured, not released", "files that are not in models/", not_released),
    Section(14, "Refused variants", "made, tested and not kept", refused),
    Section(16, "Cost only", "built with random weights", cost_only),
    Section(18, "Failed measurements", "and why", failures),
)
