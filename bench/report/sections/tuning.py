"""The report's section on workers, threads and batch sizes of the service."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from bench.report.formats import count, markdown_table, numbers_after_name
from bench.report.sections.peers import spread_text
from bench.rows.files import MachineResults
from bench.rows.kinds.service import DEFAULT_MAX_BATCH, SettingsMeasurement
from bench.rows.selection import ModelResult, newest
from bench.statistics.samples import median, spread_of


def settings(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """What each choice of workers, threads and batch size gives, and which is best."""
    found = [
        (row.model, row.measurement)
        for row in newest(results.rows)
        if isinstance(row.measurement, SettingsMeasurement)
    ]

    def place(entry: tuple[str, SettingsMeasurement]) -> tuple[str, str, int, bool]:
        model, one = entry
        return model, one.device, one.cores, one.generator_shares

    groups = [list(group) for _, group in groupby(sorted(found, key=place), place)]
    return "\n\n".join(_group(group[0][0], [one for _, one in group]) for group in groups)


def _group(model: str, measured: Sequence[SettingsMeasurement]) -> str:
    first = measured[0]
    ranked = sorted(measured, key=lambda one: -median(one.requests_per_second))
    best = ranked[0]
    rows = [
        [
            str(one.workers),
            str(one.threads),
            str(one.max_batch),
            spread_text(spread_of(one.requests_per_second), count),
            spread_text(spread_of(_shares(one, best))),
            spread_text(spread_of(one.one_client_p50_ms)),
            spread_text(spread_of(one.p50_ms)),
            spread_text(spread_of(one.p99_ms)),
            count(median(one.resident_bytes) / 1e6),
        ]
        for one in ranked
    ]
    header = [
        "Workers",
        "Threads each",
        "Batch, at most",
        "Requests/s, median (range)",
        "Of the best",
        "One client p50, ms",
        "p50 at saturation, ms",
        "p99 at saturation, ms",
        "Memory, MB",
    ]
    where = "one core" if first.cores == 1 else f"{first.cores} cores"
    where += ", shared with the load generator" if first.generator_shares else ""
    text = (
        f"{model} on {first.device}, {where}; {first.connections} connections, one image a "
        f"request, {len(first.requests_per_second)} interleaved rounds of {first.seconds:g} s. "
        f"Most requests: {_named(best)}."
    )
    default = next((one for one in measured if _is_default(one)), None)
    if default is not None and default is not best:
        share = spread_text(spread_of(_shares(default, best)))
        text += f" The service's own choice, {_named(default)}, reaches {share} of that."
    return f"{text}\n\n{markdown_table(header, rows, numbers_after_name(header))}"


def _shares(one: SettingsMeasurement, other: SettingsMeasurement) -> list[float]:
    """What it serves of the other's requests, in each round."""
    rates = zip(one.requests_per_second, other.requests_per_second, strict=True)
    return [mine / others for mine, others in rates]


def _is_default(one: SettingsMeasurement) -> bool:
    wanted = 1 if one.device == "cuda" else one.cores
    return (one.workers, one.threads, one.max_batch) == (wanted, 1, DEFAULT_MAX_BATCH)


def _named(one: SettingsMeasurement) -> str:
    workers = "1 worker" if one.workers == 1 else f"{one.workers} workers"
    threads = "1 thread" if one.threads == 1 else f"{one.threads} threads"
    return f"{workers}, {threads}, batches of at most {one.max_batch}"
