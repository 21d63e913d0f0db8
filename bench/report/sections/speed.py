"""Sections on speed: in process, over HTTP, and in MLPerf's scenarios."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from bench.report.formats import (
    NOTHING,
    REQUESTS_PER_S_SHARED,
    count,
    percent,
    significant,
)
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Picture, Table, words
from bench.rows.kinds.service import GENERATOR_LIMIT, LoadMeasurement
from bench.rows.kinds.speed import (
    SCENARIO_TITLES,
    SCENARIOS,
    LatencyMeasurement,
    ScenarioMeasurement,
)
from bench.rows.row import Row
from bench.rows.selection import ModelResult
from bench.statistics.samples import interquartile_range, percentile
from bench.statistics.stability import TOLERANCE


def latency(shown: Shown) -> Iterator[Block]:
    """Percentiles of one call, per batch size, with a bootstrap interval of the median."""
    calls = [(shown.name(model), one) for model in shown.models for one in model.latency.values()]
    if not calls:
        return
    columns: list[Column[tuple[str, LatencyMeasurement]]] = [
        words("Model", lambda call: call[0]),
        Column("Batch", lambda call: str(call[1].batch_size)),
        Column("p50, ms (95 % interval)", lambda call: _median_text(call[1])),
        Column("p90, ms", lambda call: significant(percentile(call[1].times_ms, 90))),
        Column("p99, ms", lambda call: significant(percentile(call[1].times_ms, 99))),
        Column("Interquartile range, ms", lambda c: significant(interquartile_range(c[1].times_ms))),  # noqa: E501
        Column("Calls", lambda call: count(len(call[1].samples_ns))),
        Column("Rounds", lambda call: str(call[1].rounds)),
        Column("Threads", lambda call: str(call[1].threads)),
    ]  # fmt: skip
    yield Table(columns, calls)
    yield Picture("latency")


def _median_text(call: LatencyMeasurement) -> str:
    interval = call.median_interval_ms
    low, high = significant(interval.low), significant(interval.high)
    return f"{significant(percentile(call.times_ms, 50))} ({low}–{high})"


def throughput(shown: Shown) -> Iterator[Block]:
    """Images per second, per batch size."""
    sizes = sorted({size for model in shown.models for size in model.throughput})
    if not sizes:
        return
    yield "Images per second in process: the median over the rounds."

    def rate(size: int, model: ModelResult) -> str:
        return count(model.images_per_second(size))

    columns = [Column(f"batch {size}", partial(rate, size)) for size in sizes]
    yield Table(
        [words("Model", shown.name), *columns],
        [model for model in shown.models if model.throughput],
    )
    yield Picture("throughput")
    yield Picture("throughput_latency")


def load(shown: Shown) -> Iterator[Block]:
    """The load runs, and whether the generator was their limit."""
    runs = [
        (model, found)
        for model in shown.models
        for found in ((model.load,) if model.load else ()) + model.offered
    ]
    if not runs:
        return
    yield (
        "Closed loop: each user sends its next request when it has the last answer, so the rate is "
        "what the server sustains and the times are those at saturation. One real test image per "
        "request, as PNG; the answer is JSON."
    )

    def at(level: float, run: tuple[ModelResult, LoadMeasurement]) -> str:
        return significant(run[1].percentile_ms(level))

    columns: list[Column[tuple[ModelResult, LoadMeasurement]]] = [
        words("Model", lambda run: shown.name(run[0])),
        Column("Users", lambda run: str(run[1].users)),
        Column("Loop", lambda run: _loop(run[1])),
        Column(REQUESTS_PER_S_SHARED, lambda run: count(run[1].request_rate)),
        *(Column(f"p{level}, ms", partial(at, level)) for level in (50, 90, 99)),
        Column("Requests", lambda run: count(run[1].sent)),
        Column("Not 200", lambda run: count(run[1].sent - run[1].answered)),
        Column(
            "Seconds + warm-up",
            lambda r: f"{significant(r[1].seconds)} + {significant(r[1].warm_up_seconds)}",
        ),
        Column("Generator, % of a core", lambda run: percent(run[1].generator_cpu_share, 0)),
        Column("Server CPU, µs/request", lambda run: count(run[1].server_cpu_us)),
    ]
    yield Table(columns, runs)
    limited = [model.model for model, found in runs if found.generator_was_limit]
    if limited:
        yield (
            f"**The load generator was the limit for {', '.join(limited)}** (above "
            f"{percent(GENERATOR_LIMIT, 0)} % of its core): their server can do more than this."
        )
    else:
        yield (
            f"The generator stayed below {percent(GENERATOR_LIMIT, 0)} % of its core throughout; "
            "it still shares the machine's cores with the server."
        )
    yield Picture("load")


def _loop(found: LoadMeasurement) -> str:
    if found.rate_per_s is None:
        return "closed"
    return f"open, {found.shape}, {found.rate_per_s:g}/s offered"


def scenarios(shown: Shown) -> Iterator[Block]:
    """MLPerf's scenarios: one line for each model, place and scenario."""
    order = {str(name): position for position, name in enumerate(SCENARIOS)}
    rows = sorted(
        shown.rows(ScenarioMeasurement),
        key=lambda row: (
            row.model, row.measurement.via != "in process", order[row.measurement.scenario],
        ),
    )  # fmt: skip
    if not rows:
        return
    yield _SCENARIOS

    def at(level: float, row: Row[ScenarioMeasurement]) -> str:
        times = row.measurement.times_ms
        return significant(percentile(times, level)) if times.size else NOTHING

    titles = {str(name): title for name, title in SCENARIO_TITLES.items()}
    columns: list[Column[Row[ScenarioMeasurement]]] = [
        words("Model", lambda row: row.model),
        words("Where", lambda row: f"{row.measurement.via}, {row.measurement.device}"),
        words("Scenario", lambda row: titles[row.measurement.scenario]),
        words("Reports", lambda row: row.measurement.headline.what),
        Column("Result (95 % interval)", lambda row: _result(row.measurement)),
        Column("p50, ms", partial(at, 50)),
        Column("p99, ms", partial(at, 99)),
        words("Loop", lambda row: row.measurement.loop),
        Column("Queries", lambda row: count(row.measurement.queries)),
        Column("Failed", lambda row: count(row.measurement.failed)),
        Column("Seconds", lambda row: significant(row.measurement.seconds)),
        Column("Warm-up queries", lambda row: count(row.measurement.warm_up_queries)),
        Column("Sent late (p99), ms", lambda row: significant(row.measurement.send_lag_p99_ms)),
        Column("Generator, % of a core", lambda r: percent(r.measurement.generator_cpu_share, 0)),
        words("Last windows", lambda row: _settled(row.measurement)),
    ]
    yield Table(columns, rows)
    yield (
        "Server's rate was searched for in geometric steps, then by bisection, and had to hold "
        "once more. Each try (queries/s: p99), those that did not hold struck out:"
    )
    yield "\n".join(
        f"- {row.model}, {row.measurement.via}: {_tries(row.measurement)}"
        for row in rows
        if row.measurement.tries
    )


_SCENARIOS: Final = (
    "The names and rules are MLPerf Inference's; the scale is not: theirs run 600 s and at least "
    "24,576 queries for a p90 and 270,336 for a p99, these what the table says. Closed loop: the "
    "next query follows the last answer. Open loop: queries are due at moments drawn beforehand "
    "(Poisson), and are timed from when they were due, however late they were sent. A MultiStream "
    "query is 8 images: one batch in process, 8 requests at once over HTTP. Offline over HTTP is a "
    "closed loop of many users. Intervals are a bootstrap that takes queries for independent. "
    f"*Unstable*: the last three of six windows lie more than {TOLERANCE:.0%} apart; the figure "
    "is what was seen, not what would be seen again."
)


def _settled(measurement: ScenarioMeasurement) -> str:
    apart = measurement.windows_apart
    if apart is None:
        return "too short to tell"
    return f"{'**unstable**' if apart > TOLERANCE else 'stable'}, {apart:.0%} apart"


def _result(measurement: ScenarioMeasurement) -> str:
    found = measurement.headline
    if found.value is None:
        return "no rate held"
    value = f"{significant(found.value)} {found.unit}"
    if found.interval is None:
        return value
    return f"{value} ({significant(found.interval.low)}–{significant(found.interval.high)})"


def _tries(measurement: ScenarioMeasurement) -> str:
    shown = []
    for one in measurement.tries:
        failed = f", {one.failed} failed" if one.failed else ""
        text = f"{significant(one.rate_per_s)}: {significant(one.p99_ms)} ms{failed}"
        shown.append(text if one.held else f"~~{text}~~")
    return "; ".join(shown)


SECTIONS: Final = (
    Section(10, "Accuracy against cost", lambda shown: [Picture("trade_offs")]),
    Section(40, "Latency in process", latency, "latency"),
    Section(50, "Throughput in process", throughput, "throughput"),
    Section(60, "Over HTTP, under load", load, "HTTP load"),
    Section(70, "MLPerf's scenarios, scaled down", scenarios),
)
