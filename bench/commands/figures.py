"""Figures that the commands show for a model: their names, formats and better direction.

``cifar10 table``, ``cifar10 show`` and the summary of a measuring command share this list.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.report.formats import (
    NOTHING,
    REQUESTS_PER_S_OWN_CORE,
    REQUESTS_PER_S_SHARED,
    accuracy_with_interval,
    count,
    percent,
    significant,
)
from bench.rows.kinds.accuracy import mean_corrupted_accuracy
from bench.rows.kinds.cost import CostMeasurement
from bench.rows.kinds.service import (
    BulkMeasurement,
    ChaosMeasurement,
    PeerMeasurement,
    SettingsMeasurement,
)
from bench.rows.kinds.verdicts import VerdictMeasurement
from bench.rows.row import Row
from bench.rows.selection import ModelResult, select
from cifar10.verdict import VERDICTS


@dataclass(frozen=True)
class Figure:
    """One figure of a model."""

    name: str
    """Name for ``--sort``."""
    title: str
    value: Callable[[ModelResult], float | None]
    text: Callable[[float], str]
    higher_is_better: bool = False
    in_points: bool = False
    """Whether changes are given in percentage points instead of per cent."""


def _robustness(result: ModelResult) -> float | None:
    return mean_corrupted_accuracy(result.robustness) if result.robustness else None


def _same_as_in_process(result: ModelResult) -> float | None:
    found = result.verify
    return found.same_top1 / found.images if found and found.images else None


def _requests_s(result: ModelResult) -> float | None:
    return result.load.request_rate if result.load and result.load.answered else None


def _http_ms(percent: float) -> Callable[[ModelResult], float | None]:
    def value(result: ModelResult) -> float | None:
        found = result.load
        return found.percentile_ms(percent) if found and found.answered else None

    return value


def _peak_mb(result: ModelResult) -> float | None:
    peak = result.resources.peak_bytes if result.resources else None
    return None if peak is None else peak / 1e6


def _cost(of: Callable[[CostMeasurement], float]) -> Callable[[ModelResult], float | None]:
    return lambda result: of(result.cost) if result.cost is not None else None


FIGURES: Final[tuple[Figure, ...]] = (
    Figure("accuracy", "Accuracy, %", lambda one: one.share_right, percent, True, True),
    Figure("latency", "Latency, ms", lambda one: one.typical_latency_ms, significant),
    Figure("p50", "p50, ms", lambda one: one.latency_ms(50), significant),
    Figure("p99", "p99, ms", lambda one: one.latency_ms(99), significant),
    Figure(
        "images",
        "Images/s",
        lambda one: one.images_per_second(one.best_batch_size),
        significant,
        True,
    ),
    Figure("requests", REQUESTS_PER_S_SHARED, _requests_s, significant, True),
    Figure("http_p50", "HTTP p50, ms", _http_ms(50), significant),
    Figure("http_p99", "HTTP p99, ms", _http_ms(99), significant),
    Figure("robustness", "Damaged, %", _robustness, percent, True, True),
    Figure("verify", "Same over HTTP, %", _same_as_in_process, percent, True, True),
    Figure("memory", "Peak memory, MB", _peak_mb, significant),
    Figure(
        "ready",
        "Ready after, s",
        lambda one: one.resources.ready_seconds if one.resources else None,
        significant,
    ),
    Figure("size", "Size, MB", _cost(lambda cost: cost.size_bytes / 1e6), significant),
    Figure("macs", "MACs, M", _cost(lambda cost: cost.macs / 1e6), significant),
    Figure("parameters", "Parameters", _cost(lambda cost: cost.parameters_total), count),
)

LEADERBOARD: Final = ("accuracy", "latency", "p99", "images", "requests", "size")
"""Columns of ``cifar10 table``."""
SPARE: Final = ("images", "p99", "size", "requests")
"""Columns of ``cifar10 table`` to leave out where there is no room, the first first."""
MEASURED: Final = (
    "accuracy", "p50", "p99", "images", "requests", "http_p50", "http_p99", "robustness", "verify",
    "memory", "ready",
)  # fmt: skip
"""Figures in the summary of a measuring command, where it measured them."""

BY_NAME: Final[dict[str, Figure]] = {figure.name: figure for figure in FIGURES}


def shown(figure: Figure, result: ModelResult) -> str:
    """Return the figure as text, an accuracy with its 95 % interval."""
    value = figure.value(result)
    if value is None:
        return NOTHING
    if figure.name == "accuracy" and result.accuracy is not None:
        return accuracy_with_interval(result.accuracy.top1)
    return figure.text(value)


def change(figure: Figure, now: float | None, before: float | None) -> str:
    """Return a figure's signed change, or nothing if there is no earlier value."""
    if now is None or before is None:
        return ""
    if figure.in_points:
        return f"{100 * (now - before):+.2f}"
    return f"{100 * (now / before - 1):+.1f} %" if before else ""


def measured_now(rows: Iterable[Row], run_id: str) -> list[tuple[ModelResult, ModelResult | None]]:
    """Return the results of one run, each with the model's earlier results on the same provider."""
    every = list(rows)
    mine = [row for row in every if row.run_id == run_id]
    if not mine:
        return []
    start, quick = min(row.created for row in mine), mine[0].quick
    earlier: Mapping[tuple[str, str | None], ModelResult] = {
        (one.model, one.provider): one
        for one in select(row for row in every if row.created < start and row.quick is quick)
    }
    return [(one, earlier.get((one.model, one.provider))) for one in select(mine)]


def result_table(
    found: Sequence[tuple[ModelResult, ModelResult | None]],
) -> tuple[list[str], list[list[str]]]:
    """Return the header and lines of a run's result table.

    There is one line a model and one column for each measured figure, with its change since the
    previous run.
    """
    figures = [
        BY_NAME[name]
        for name in MEASURED
        if any(BY_NAME[name].value(now) is not None for now, _ in found)
    ]
    lines = []
    for now, before in found:
        cells = [now.model]
        for figure in figures:
            earlier = figure.value(before) if before is not None else None
            cells.append(
                f"{shown(figure, now)} {change(figure, figure.value(now), earlier)}".rstrip()
            )
        lines.append(cells)
    return ["Model", *(figure.title for figure in figures)], lines


def other_lines(rows: Iterable[Row], run_id: str) -> list[str]:
    """Return a line for each row of a run that has no figure of a model.

    These are bulk requests, settings, faults and other servers.
    """
    mine = [row for row in rows if row.run_id == run_id]
    return [f"{row.model}: {line}" for row in mine if (line := _line_of(row)) is not None]


def _line_of(row: Row) -> str | None:
    match row.measurement:
        case BulkMeasurement() as found:
            in_process = median(found.best_in_process)
            ways = (("/classify/batch", found.classify_batch), ("v2", found.v2_infer))
            shares = [
                f"{way} {median(rates) / in_process:.0%} of it" for way, rates in ways if rates
            ]
            return f"{significant(in_process)} images/s in process, {', '.join(shares)}"
        case SettingsMeasurement() as found:
            chosen = f"{found.workers} workers, {found.threads} threads, batch {found.max_batch}"
            name = REQUESTS_PER_S_SHARED if found.generator_shares else REQUESTS_PER_S_OWN_CORE
            return (
                f"{found.cores} cores, {chosen}: {significant(found.request_rate)} {name.lower()}"
            )
        case ChaosMeasurement() as found:
            return f"{found.trial} {'holds' if found.holds else 'does not hold'}: {found.promise}"
        case VerdictMeasurement() as found:
            given = ", ".join(
                f"{count(number)} {verdict} ({percent(right / number, 1)} % right)"
                for verdict in VERDICTS
                for number, right in [found.given_and_right(verdict)]
                if number
            )
            of_others = percent(found.share_of_others("sure"), 1)
            others = (
                f"; of {found.of_others:,} others {of_others} % sure" if found.of_others else ""
            )
            asked = f"{found.asked}, " if found.asked != row.model else ""
            return f"{asked}{count(found.total)} images of {found.dataset}: {given}{others}"
        case PeerMeasurement(role="ours" | "peer") as found if found.request_rate is not None:
            rate = significant(found.request_rate)
            return f"round {found.round}, {found.server}: {rate} {REQUESTS_PER_S_OWN_CORE.lower()}"
        case _:
            return None


def record(result: ModelResult) -> dict[str, float | str | bool | None]:
    """Return all figures of a model, unrounded, for JSON output."""
    return {
        "model": result.model,
        "sha256": result.digest,
        "provider": result.provider,
        "dataset": result.dataset.variant if result.dataset else None,
        "dataset_name": result.dataset.name if result.dataset else None,
        "in_store": result.released,
        "quick": result.quick,
        **{figure.name: figure.value(result) for figure in FIGURES},
    }
