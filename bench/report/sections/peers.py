"""The report's sections on other servers beside this one, and on many images in one request."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.report.formats import NOTHING, count, markdown_table, numbers_after_name, significant
from bench.report.peer_rounds import Comparison, comparisons
from bench.rows.files import MachineResults
from bench.rows.kinds.service import BulkMeasurement, PeerMeasurement
from bench.rows.selection import ModelResult, newest
from bench.statistics.samples import Spread, median, spread_of

OURS: Final = "ours"
OURS_V2: Final = "ours_v2"

_NOT_MEASURED: Final = (
    "`bench/peers` has not been measured on this machine: nothing is claimed here about how this "
    "service compares with other servers."
)

_HOW: Final = (
    "The same `model.onnx`, the same pictures and the same ten probabilities (to 1e-4, checked "
    "before every measurement), single images. Each server has one worker on one core and is "
    "written as its own documentation has it (`bench/peers/<name>/server.py` names the pages); "
    "this service runs with its defaults, limits and metrics on, and that one model loaded. The "
    "load generator has another core. The servers take turns in rounds; figures are medians over "
    "the rounds with the least and the most, and a ratio is of figures of the same round. "
    "*Decoder*: whose code makes pixels of the picture; none where the request holds pixels. "
    "*Half load*: Poisson arrivals at half of the server's own rate, timed from when a request "
    "was due; then at a rate that is the same for all. *CPU*: of the whole process tree. "
    "*Memory*: of the tree, shared pages once, after the load. *Ready*: from the start, on that "
    "one core, to the first answer."
)


def peers(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Other servers with the same model beside ours."""
    found = comparisons(results.rows)
    if not found:
        return _NOT_MEASURED
    return "\n\n".join([_HOW, *map(_one_model, found)])


def readme_peers(results: MachineResults) -> str:
    """The README's short table; nothing where nothing was compared."""
    parts = []
    for comparison in comparisons(results.rows):
        rows = [
            [
                _server(found),
                found.decoder,
                spread_text(comparison.spread(name, _request_rate), count),
                _ratio(comparison, name),
                spread_text(comparison.spread(name, lambda one: one.half_load_p99_ms)),
                spread_text(comparison.spread(name, lambda one: one.common_rate_p99_ms)),
            ]
            for name, found in _servers(comparison)
        ]
        header = [
            "Server",
            "Decoder",
            "Requests/s",
            "Ours is",
            "p99 at half its rate, ms",
            f"p99 at {_common_rate(comparison)}, ms",
        ]
        parts.append(f"Model: `{comparison.model}`.\n")
        parts.append(markdown_table(header, rows, numbers_after_name(header, ("Decoder",))))
        parts.append(_sentences(comparison))
    return "\n\n".join(part.strip() for part in parts if part)


def _one_model(comparison: Comparison) -> str:
    spread = comparison.spread
    rows = [
        [
            _server(found),
            found.sends,
            found.decoder,
            spread_text(spread(name, _request_rate), count),
            _ratio(comparison, name),
            str(len(comparison.rounds[name])),
            spread_text(spread(name, lambda one: one.cpu_us_per_request), count),
            spread_text(spread(name, lambda one: one.one_client_p50_ms)),
            spread_text(spread(name, lambda one: one.saturated_p99_ms)),
            spread_text(spread(name, lambda one: one.half_load_p50_ms)),
            spread_text(spread(name, lambda one: one.half_load_p99_ms)),
            spread_text(spread(name, lambda one: one.common_rate_p50_ms)),
            spread_text(spread(name, lambda one: one.common_rate_p99_ms)),
            spread_text(spread(name, lambda one: one.resident_bytes / 1e6), count),
            spread_text(spread(name, lambda one: one.ready_seconds)),
        ]
        for name, found in _servers(comparison)
    ]
    header = [
        "Server",
        "Request",
        "Decoder",
        "Requests/s, median (range)",
        "Ours is",
        "Rounds",
        "CPU, µs a request",
        "One client p50, ms",
        "p99 at saturation, ms",
        "p50 at half load, ms",
        "p99 at half load, ms",
        f"p50 at {_common_rate(comparison)}, ms",
        f"p99 at {_common_rate(comparison)}, ms",
        "Memory, MB",
        "Ready, s",
    ]
    text = f"Model: `{comparison.model}`.\n\n"
    text += markdown_table(header, rows, numbers_after_name(header))
    parts = [text, _sentences(comparison), _starts(comparison), _generator(comparison)]
    parts += [
        f"{failure.server} could not be measured: {failure.error}: {failure.message}"
        for failure in comparison.failures
        if failure.name not in comparison.rounds
    ]
    failed = sum(
        one.failed_requests for rounds in comparison.rounds.values() for one in rounds.values()
    )
    if failed:
        parts.append(f"Requests without a 200, of all servers and loops: {count(failed)}.")
    return "\n\n".join(part.strip() for part in parts if part)


def _servers(comparison: Comparison) -> list[tuple[str, PeerMeasurement]]:
    """Those that answer pictures: ours first, then the fastest."""
    found = [
        (name, comparison.first(name))
        for name in comparison.rounds
        if comparison.first(name).role in ("ours", "peer")
    ]

    def rank(entry: tuple[str, PeerMeasurement]) -> tuple[bool, float]:
        rate = comparison.spread(entry[0], _request_rate)
        return entry[1].role != "ours", -(rate.median if rate else 0.0)

    return sorted(found, key=rank)


def _sentences(comparison: Comparison) -> str:
    """What the table does not say: Triton against our own v2, and the tails."""
    lines = []
    pixels = [
        name for name, found in _servers(comparison)
        if found.role == "peer" and found.decoder == "none"
    ]  # fmt: skip
    for name in pixels:
        ratio = comparison.ratio(OURS_V2, name, _request_rate)
        if ratio is not None:
            lines.append(
                f"Asked in the same way, with pixels over v2, this service is "
                f"{_times(ratio)} {comparison.first(name).server}."
            )
    lines.append(_tails(comparison, "half of each server's own rate", _half_load_p99))
    lines.append(_tails(comparison, _common_rate(comparison), _common_rate_p99))
    return " ".join(line for line in lines if line)


def _request_rate(found: PeerMeasurement) -> float | None:
    return found.request_rate


def _half_load_p99(found: PeerMeasurement) -> float | None:
    return found.half_load_p99_ms


def _common_rate_p99(found: PeerMeasurement) -> float | None:
    return found.common_rate_p99_ms


def _tails(
    comparison: Comparison, load: str, p99: Callable[[PeerMeasurement], float | None]
) -> str:
    """Our tail beside the best of the others'."""
    tails = {
        name: spread.median
        for name, found in _servers(comparison)
        if (spread := comparison.spread(name, p99)) is not None
        and (found.role == "peer" or name == OURS)
    }
    others = {name: tail for name, tail in tails.items() if name != OURS}
    if OURS not in tails or not others:
        return ""
    best = min(others, key=others.__getitem__)
    return (
        f"p99 at {load}: {significant(tails[OURS])} ms here, {significant(others[best])} ms for "
        f"the best of the others ({comparison.first(best).server})."
    )


def _common_rate(comparison: Comparison) -> str:
    rates = {
        one.common_rate_per_s
        for rounds in comparison.rounds.values()
        for one in rounds.values()
        if one.common_rate_per_s is not None
    }
    return " or ".join(f"{rate:g}" for rate in sorted(rates)) + " requests/s"


def _starts(comparison: Comparison) -> str:
    ours = comparison.spread(OURS, lambda one: one.ready_seconds)
    lines = []
    for name in comparison.rounds:
        found = comparison.first(name)
        if found.role != "start only" or ours is None:
            continue
        other = comparison.spread(name, lambda one: one.ready_seconds)
        lines.append(
            f"{found.server} (no model, no picture) is ready after {spread_text(other)} s; this "
            f"service, with `{comparison.model}` alone, after {spread_text(ours)} s."
        )
    return " ".join(lines)


def _generator(comparison: Comparison) -> str:
    """How far the generator was from being the limit."""
    fastest = comparison.spread(OURS, _request_rate)
    for name in comparison.rounds:
        if comparison.first(name).role == "ceiling":
            rate = comparison.spread(name, _request_rate)
            if rate is None or fastest is None:
                return ""
            return (
                f"The load generator's own ceiling, against a server that does nothing: "
                f"{spread_text(rate, count)} requests/s; this service's rate is "
                f"{fastest.median / rate.median:.0%} of it."
            )
    return ""


def _server(found: PeerMeasurement) -> str:
    return f"**{found.server}**" if found.role == "ours" else found.server


def _ratio(comparison: Comparison, name: str) -> str:
    if comparison.first(name).role == "ours":
        return NOTHING
    ratio = comparison.ratio(OURS, name, _request_rate)
    return NOTHING if ratio is None else _times(ratio)


def _times(ratio: Spread) -> str:
    return f"{significant(ratio.median)}× ({significant(ratio.low)}–{significant(ratio.high)})"


def spread_text(spread: Spread | None, number: Callable[[float | None], str] = significant) -> str:
    """The median, with the least and the most."""
    if spread is None:
        return NOTHING
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def bulk(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Many images in one request, against in process."""
    rows = []
    latest = {
        row.model: (row, row.measurement)  # of a model that was made anew, the newest
        for row in sorted(newest(results.rows), key=lambda row: row.created)
        if isinstance(row.measurement, BulkMeasurement)
    }
    for row, found in latest.values():
        best = max((found.in_process, found.in_process_chunks), key=median)
        rows.append(
            [
                row.model,
                str(found.images),
                str(len(found.in_process)),
                spread_text(spread_of(found.in_process), count),
                f"{spread_text(spread_of(found.in_process_chunks), count)}",
                f"{spread_text(spread_of(found.classify_batch), count)}",
                _share(found.classify_batch, best),
                f"{spread_text(spread_of(found.v2_infer), count)}",
                _share(found.v2_infer, best),
            ]
        )
    if not rows:
        return ""
    header = [
        "Model",
        "Images a request",
        "Rounds",
        "In process, one run, images/s",
        "In process, in the service's chunks, images/s",
        "/classify/batch, images/s",
        "of in process, %",
        "v2 infer, images/s",
        "of in process, %",
    ]
    return (
        "Raw pixels, the server on one core and the client on another, ONNX Runtime in process on "
        "the server's core while it waits. Rounds interleave the ways; a share is of "
        "the same round's rate in process, by the way that is faster there by the median.\n\n"
        + markdown_table(header, rows, numbers_after_name(header))
    )


def _share(over_http: Sequence[float], in_process: Sequence[float]) -> str:
    shares = [mine / theirs for mine, theirs in zip(over_http, in_process, strict=True)]
    return spread_text(
        spread_of(shares), lambda share: NOTHING if share is None else f"{share:.0%}"[:-1]
    )
