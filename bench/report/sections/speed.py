"""The report's section on the MLPerf scenarios, from rows to Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.report.formats import (
    NOTHING,
    count,
    markdown_table,
    numbers_after_name,
    percent,
    significant,
)
from bench.rows.files import MachineResults
from bench.rows.kinds.speed import SCENARIO_TITLES, SCENARIOS, Headline, ScenarioMeasurement
from bench.rows.row import Row
from bench.rows.selection import ModelResult, newest
from bench.statistics.stability import TOLERANCE

Section = Callable[[MachineResults, Sequence[ModelResult], Mapping[str, str]], str]


def scenarios(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """MLPerf's scenarios: one line for each model, place and scenario."""
    found = [
        (row.model, row.measurement)
        for row in _current(results, models)
        if isinstance(row.measurement, ScenarioMeasurement)
    ]
    if not found:
        return ""
    order = {scenario: position for position, scenario in enumerate(SCENARIOS)}
    found.sort(key=lambda pair: (pair[0], pair[1].via != "in process", order[pair[1].scenario]))  # type: ignore[index]
    header = [
        "Model",
        "Where",
        "Scenario",
        "Reports",
        "Result (95 % interval)",
        "p50, ms",
        "p99, ms",
        "Loop",
        "Queries",
        "Failed",
        "Seconds",
        "Warm-up queries",
        "Sent late (p99), ms",
        "Generator, % of a core",
        "Last windows",
    ]
    table = markdown_table(
        header,
        [_scenario_line(model, measurement) for model, measurement in found],
        numbers_after_name(header, ("Where", "Scenario", "Reports", "Loop", "Last windows")),
    )
    searches = "\n".join(
        f"- {model}, {measurement.via}: {_tries(measurement)}"
        for model, measurement in found
        if measurement.tries
    )
    return f"{_SCENARIOS}\n\n{table}\n{_SEARCH}\n\n{searches}".rstrip()


SCENARIO_SECTIONS: Final[tuple[tuple[str, Section], ...]] = (
    ("MLPerf's scenarios, scaled down", scenarios),
)
"""Title → what renders it, in order."""

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

_SEARCH: Final = (
    "Server's rate was searched for in geometric steps, then by bisection, and had to hold once "
    "more. Each try (queries/s: p99), those that did not hold struck out:"
)


def _current(results: MachineResults, models: Sequence[ModelResult]) -> list[Row]:
    """The newest rows of the files that are shown."""
    digests = {(model.model, model.digest) for model in models}
    return [row for row in newest(results.rows) if (row.model, row.digest) in digests]


def _scenario_line(model: str, measurement: ScenarioMeasurement) -> list[str]:
    found = measurement.headline
    middle, tail = (measurement.latency_ms(level) for level in (50, 99))
    apart = measurement.windows_apart
    if apart is None:
        settled = "too short to tell"
    elif apart > TOLERANCE:
        settled = f"**unstable**, {apart:.0%} apart"
    else:
        settled = f"stable, {apart:.0%} apart"
    return [
        model,
        f"{measurement.via}, {measurement.device}",
        SCENARIO_TITLES[measurement.scenario],  # type: ignore[index]
        found.what,
        _result(found),
        significant(middle[0]) if middle else NOTHING,
        significant(tail[0]) if tail else NOTHING,
        measurement.loop,
        count(measurement.queries),
        count(measurement.failed),
        significant(measurement.seconds),
        count(measurement.warm_up_queries),
        significant(measurement.send_lag_p99_ms),
        percent(measurement.generator_cpu_share, 0),
        settled,
    ]


def _result(found: Headline) -> str:
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
