"""Section on workers, threads and batch sizes of the service."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from bench.report.formats import REQUESTS_PER_S_OWN_CORE, REQUESTS_PER_S_SHARED, count, spread_text
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table
from bench.rows.kinds.service import SettingsMeasurement
from bench.rows.row import Row
from bench.statistics.samples import median, spread_of


def settings(shown: Shown) -> Iterator[Block]:
    """Rate and latency of each choice of workers, threads and batch size."""

    def place(row: Row[SettingsMeasurement]) -> tuple[str, str, int, bool]:
        one = row.measurement
        return row.model, one.device, one.cores, one.generator_shares

    for (model, *_), group in groupby(sorted(shown.rows(SettingsMeasurement), key=place), place):
        yield from _group(model, [row.measurement for row in group])


def _group(model: str, measured: Sequence[SettingsMeasurement]) -> Iterator[Block]:
    first = measured[0]
    ranked = sorted(measured, key=lambda one: -one.request_rate)
    best = ranked[0]

    def share(one: SettingsMeasurement) -> str:
        """Return its share of the best choice's requests, round by round."""
        rates = zip(one.requests_per_second, best.requests_per_second, strict=False)
        return spread_text(spread_of([mine / others for mine, others in rates]))

    where = "one core" if first.cores == 1 else f"{first.cores} cores"
    where += ", shared with the load generator" if first.generator_shares else ""
    text = (
        f"`{model}` on {first.device}, {where}: {first.connections} connections, one image a "
        f"request, {len(first.requests_per_second)} interleaved rounds of {first.seconds:g} s. "
        f"Best: {_named(best)}."
    )
    default = next((one for one in measured if one.is_default), None)
    if default is not None and default is not best:
        text += f" The service's default, {_named(default)}, reaches {share(default)} of that rate."
    yield text
    rate = REQUESTS_PER_S_SHARED if first.generator_shares else REQUESTS_PER_S_OWN_CORE
    columns: list[Column[SettingsMeasurement]] = [
        Column("Workers", lambda one: str(one.workers), "left"),
        Column("Threads each", lambda one: str(one.threads)),
        Column("Batch, at most", lambda one: str(one.max_batch)),
        Column(f"{rate}, median (range)", lambda o: spread_text(spread_of(o.requests_per_second), count)),  # noqa: E501
        Column("Share of the best", share),
        Column("One client p50, ms", lambda one: spread_text(spread_of(one.one_client_p50_ms))),
        Column("p50 at saturation, ms", lambda one: spread_text(spread_of(one.p50_ms))),
        Column("p99 at saturation, ms", lambda one: spread_text(spread_of(one.p99_ms))),
        Column("Memory, MB", lambda one: count(median(one.resident_bytes) / 1e6)),
    ]  # fmt: skip
    yield Table(columns, ranked, f"settings-{model}-{first.cores}-cores")


def _named(one: SettingsMeasurement) -> str:
    workers = "1 worker" if one.workers == 1 else f"{one.workers} workers"
    threads = "1 thread" if one.threads == 1 else f"{one.threads} threads"
    return f"{workers}, {threads}, batches of at most {one.max_batch}"


SECTIONS: Final = (
    Section(84, "Workers, threads and batch size", "which settings serve most", settings),
)
