"""Sections on speed: in process, over HTTP, and in MLPerf's scenarios."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from bench.report.charts import pictures
from bench.report.formats import NOTHING, REQUESTS_PER_S_SHARED, count, percent, significant
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
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


def costs(shown: Shown) -> Iterator[Block]:
    """Accuracy against each cost."""
    found = pictures.trade_offs(shown)
    if found is not None:
        yield found


def latency(shown: Shown) -> Iterator[Block]:
    """Percentiles of one call by batch size, with a bootstrap interval of the median."""
    calls = [(shown.name(model), one) for model in shown.subjects for one in model.latency.values()]
    if not calls:
        return
    columns: list[Column[tuple[str, LatencyMeasurement]]] = [
        words("Model", lambda call: call[0]),
        Column("Batch", lambda call: str(call[1].batch_size)),
        Column("p50, ms (95 % interval)", lambda call: _median_text(call[1])),
        Column("p90, ms", lambda call: significant(percentile(call[1].times_ms, 90))),
        Column("p99, ms", lambda call: significant(percentile(call[1].times_ms, 99))),
        Column("Interquartile range, ms",
               lambda call: significant(interquartile_range(call[1].times_ms)), extra=True),
        Column("Calls", lambda call: count(len(call[1].samples_ns))),
        Column("Rounds", lambda call: str(call[1].rounds), extra=True),
        Column("Threads", lambda call: str(call[1].threads), extra=True),
    ]  # fmt: skip
    yield Table(columns, calls, "latency")
    found = pictures.latency(shown)
    if found is not None:
        yield found


def _median_text(call: LatencyMeasurement) -> str:
    interval = call.median_interval_ms
    low, high = significant(interval.low), significant(interval.high)
    return f"{significant(percentile(call.times_ms, 50))} ({low}–{high})"


def throughput(shown: Shown) -> Iterator[Block]:
    """Images per second by batch size."""
    sizes = sorted({size for model in shown.subjects for size in model.throughput})
    if not sizes:
        return

    def rate(size: int, model: ModelResult) -> str:
        return count(model.images_per_second(size))

    columns = [Column(f"batch {size}", partial(rate, size)) for size in sizes]
    measured = [model for model in shown.subjects if model.throughput]
    yield Table([words("Model", shown.name), *columns], measured, "throughput")
    found = pictures.throughput(shown)
    if found is not None:
        yield found
    yield "Images per second in process, one thread: the median over the rounds."


def load(shown: Shown) -> Iterator[Block]:
    """Yield the load runs, and whether the generator limited them."""
    runs = [
        (model, found)
        for model in shown.subjects
        for found in ((model.load,) if model.load else ()) + model.offered
    ]
    if not runs:
        return

    def at(level: float, run: tuple[ModelResult, LoadMeasurement]) -> str:
        return significant(run[1].percentile_ms(level))

    columns: list[Column[tuple[ModelResult, LoadMeasurement]]] = [
        words("Model", lambda run: shown.name(run[0])),
        Column("Users", lambda run: str(run[1].users)),
        words("Loop", lambda run: _loop(run[1]), extra=True),
        Column(REQUESTS_PER_S_SHARED, lambda run: count(run[1].request_rate)),
        *(Column(f"p{level}, ms", partial(at, level)) for level in (50, 90, 99)),
        Column("Requests", lambda run: count(run[1].sent)),
        Column("Not 200", lambda run: count(run[1].sent - run[1].answered), extra=True),
        Column("Seconds + warm-up",
               lambda r: f"{significant(r[1].seconds)} + {significant(r[1].warm_up_seconds)}",
               extra=True),
        Column("Generator, % of a core", lambda r: percent(r[1].generator_cpu_share, 0),
               extra=True),
        Column("Server CPU, µs/request", lambda run: count(run[1].server_cpu_us)),
    ]  # fmt: skip
    yield Table(columns, runs, "load")
    found = pictures.load(shown)
    if found is not None:
        yield found
    limited = [model.model for model, run in runs if run.generator_was_limit]
    yield (
        "Closed loop: each user sends its next request after the last response, so the rate is "
        "what the server sustains, and the times are those at saturation. One test image per "
        "request, as PNG; the response is JSON. The load generator shares the machine's cores."
    )
    if limited:
        yield (
            f"**The load generator was the limit for {', '.join(limited)}** (above "
            f"{percent(GENERATOR_LIMIT, 0)} % of its core): the server can do more than this."
        )


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
        words("Loop", lambda row: row.measurement.loop, extra=True),
        Column("Queries", lambda row: count(row.measurement.queries), extra=True),
        Column("Failed", lambda row: count(row.measurement.failed), extra=True),
        Column(
            "Sent late (p99), ms",
            lambda row: significant(row.measurement.send_lag_p99_ms),
            extra=True,
        ),
        Column(
            "Generator, % of a core",
            lambda r: percent(r.measurement.generator_cpu_share, 0),
            extra=True,
        ),
        words("Last windows", lambda row: _settled(row.measurement)),
    ]
    yield Table(columns, rows, "scenarios")
    yield _SCENARIOS
    tried: list[Column[Row[ScenarioMeasurement]]] = [
        words("Model", lambda row: f"{row.model}, {row.measurement.via}"),
        words("Rates tried, queries/s: p99 (struck out: not sustained)",
              lambda row: _tries(row.measurement)),
    ]  # fmt: skip
    yield Table(tried, [row for row in rows if row.measurement.tries], "server-rates")


_SCENARIOS: Final = (
    "Names and rules are those of MLPerf Inference, at a smaller scale: MLPerf runs 600 s and at "
    "least 24,576 queries for a p90 and 270,336 for a p99. Closed loop: the next query follows the "
    "last response. Open loop: queries are due at random times drawn beforehand (Poisson) and are "
    "timed from when they were due. A MultiStream query has 8 images: one batch in process, 8 "
    "simultaneous requests over HTTP. Offline over HTTP is a closed loop of many users. The "
    "server's rate was searched for in geometric steps, then by bisection, and had to hold once "
    "more. Intervals are a bootstrap that treats queries as independent. *Unstable*: the last "
    f"three of six windows differ by more than {TOLERANCE:.0%}, so the figure may not repeat."
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
    Section(10, "Accuracy against cost", "latency, file size and multiply-accumulates", costs),
    Section(40, "Latency in process", "one call, by batch size", latency),
    Section(42, "Throughput in process", "images per second, by batch size", throughput),
    Section(44, "Over HTTP, under load", "requests per second and response times", load),
    Section(46, "MLPerf's scenarios, scaled down", "four standard ways to ask", scenarios, True),
)
