"""Sections on other servers compared with this one, and on many images in one request."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bench.report.formats import NOTHING, REQUESTS_PER_S_OWN_CORE, count, significant, spread_text
from bench.report.peer_rounds import Comparison, comparisons
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.service import BulkMeasurement, PeerMeasurement
from bench.rows.row import Row
from bench.statistics.samples import Spread, spread_of

OURS: Final = "ours"
OURS_V2: Final = "ours_v2"

_NOT_MEASURED: Final = (
    "`bench/peers` has not been measured on this machine with a released model: `cifar10 bench "
    "peers`."
)

_HOW: Final = (
    "The same `model.onnx`, pictures and probabilities (to 1e-4, checked before every "
    "measurement), one image a request. Each server has one worker on one core and is written as "
    "its own documentation has it (`bench/peers/<name>/server.py` names the pages). This service "
    "runs with its defaults, limits and metrics on, and one model. The load generator has another "
    "core. Servers take turns in rounds; figures are medians over the rounds (least–most), ratios "
    "are of the same round. *Decoder*: whose code decodes the picture; none if the request holds "
    "pixels. *Half load*: Poisson arrivals at half of the server's own rate, timed from when a "
    "request was due. *CPU* and *memory*: of the whole process tree, after the load. *Ready*: from "
    "start to the first response, on one core."
)

Figure = Callable[[PeerMeasurement], float | None]
_Server = tuple[str, PeerMeasurement]
"""Name and first round, for what does not change from round to round."""


def _rate(one: PeerMeasurement) -> float | None:
    return one.request_rate


def peers(shown: Shown) -> Iterator[Block]:
    """Other servers with the same model."""
    found = comparisons(shown)
    yield _HOW if found else _NOT_MEASURED
    for comparison in found:
        yield f"Model: `{comparison.model}`."
        yield Table(_columns(comparison), _servers(comparison), f"peers-{comparison.model}")
        yield _sentences(comparison)
        yield _starts(comparison)
        yield _generator(comparison)
        for failure in comparison.failures:
            if failure.name not in comparison.rounds:
                yield f"{failure.server} could not be measured: {failure.error}: {failure.message}"
        failed = sum(one.failed_requests for one in comparison.all_rounds)
        if failed:
            yield f"Requests without a 200, of all servers and loops: {count(failed)}."


def readme_peers(shown: Shown) -> Iterator[Block]:
    """Yield the short table of ``docs/peers.md``; nothing where nothing was compared."""
    for comparison in comparisons(shown):
        yield f"Model: `{comparison.model}`."
        every = {column.title: column for column in _columns(comparison)}
        common = f"p99 at {_common_rate(comparison)}, ms"
        kept = ["Server", "Decoder", "Ours is", "p99 at half load, ms", common]
        short = [every[title] for title in kept]
        rate = every[f"{REQUESTS_PER_S_OWN_CORE}, median (range)"].text
        short.insert(2, Column(REQUESTS_PER_S_OWN_CORE, rate))
        short[1] = words("Decoder", short[1].text)
        short[4] = Column("p99 at half its rate, ms", short[4].text)
        yield Table(short, _servers(comparison))
        yield _sentences(comparison)


def _columns(comparison: Comparison) -> list[Column[_Server]]:
    def spread(
        title: str, figure: Figure, number: Callable[[float | None], str] = significant,
        *, extra: bool = False,
    ) -> Column[_Server]:  # fmt: skip
        def text(one: _Server) -> str:
            return spread_text(comparison.spread(one[0], figure), number)

        return Column(title, text, extra=extra)

    common = _common_rate(comparison)
    return [
        words("Server", lambda o: f"**{o[1].server}**" if o[1].role == "ours" else o[1].server),
        words("Request", lambda one: one[1].sends, extra=True),
        words("Decoder", lambda one: one[1].decoder),
        spread(f"{REQUESTS_PER_S_OWN_CORE}, median (range)", _rate, count),
        Column("Ours is", lambda one: _ratio(comparison, one[0])),
        Column("Rounds", lambda one: str(len(comparison.rounds[one[0]])), extra=True),
        spread("CPU, µs a request", lambda one: one.cpu_us_per_request, count),
        spread("One client p50, ms", lambda one: one.one_client_p50_ms, extra=True),
        spread("p99 at saturation, ms", lambda one: one.saturated_p99_ms),
        spread("p50 at half load, ms", lambda one: one.half_load_p50_ms, extra=True),
        spread("p99 at half load, ms", lambda one: one.half_load_p99_ms),
        spread(f"p50 at {common}, ms", lambda one: one.common_rate_p50_ms, extra=True),
        spread(f"p99 at {common}, ms", lambda one: one.common_rate_p99_ms),
        spread("Memory, MB", lambda one: one.resident_bytes / 1e6, count, extra=True),
        spread("Ready, s", lambda one: one.ready_seconds, extra=True),
    ]


def _servers(comparison: Comparison) -> list[_Server]:
    """Return the servers that classify pictures: ours first, then the fastest."""
    found = [(name, comparison.first(name)) for name in comparison.rounds]

    def rank(entry: _Server) -> tuple[bool, float]:
        rate = comparison.spread(entry[0], _rate)
        return entry[1].role != "ours", -(rate.median if rate else 0.0)

    return sorted((one for one in found if one[1].role in ("ours", "peer")), key=rank)


def _sentences(comparison: Comparison) -> str:
    """Return what the table does not show: Triton against our own v2, and the tails."""
    lines = []
    for name, found in _servers(comparison):
        if found.role == "peer" and found.decoder == "none":
            ratio = comparison.ratio(OURS_V2, name, _rate)
            if ratio is not None:
                lines.append(
                    f"With pixels over v2 on both sides, this service serves {_times(ratio)} the "
                    f"requests of {found.server}."
                )
    half = "half of each server's own rate"
    lines.append(_tails(comparison, half, lambda one: one.half_load_p99_ms))
    common = _common_rate(comparison)
    lines.append(_tails(comparison, common, lambda one: one.common_rate_p99_ms))
    return " ".join(line for line in lines if line)


def _tails(comparison: Comparison, load: str, p99: Figure) -> str:
    """Return our p99 and the best of the others."""
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
        for one in comparison.all_rounds
        if one.common_rate_per_s is not None
    }  # fmt: skip
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
    """Return how near the generator came to its own limit."""
    fastest = comparison.spread(OURS, _rate)
    ceilings = [name for name in comparison.rounds if comparison.first(name).role == "ceiling"]
    rate = comparison.spread(ceilings[0], _rate) if ceilings else None
    if rate is None or fastest is None:
        return ""
    return (
        f"Against a server that does nothing, the load generator reaches "
        f"{spread_text(rate, count)} requests/s; this service's rate is "
        f"{fastest.median / rate.median:.0%} of that."
    )


def _ratio(comparison: Comparison, name: str) -> str:
    if comparison.first(name).role == "ours":
        return NOTHING
    ratio = comparison.ratio(OURS, name, _rate)
    return NOTHING if ratio is None else _times(ratio)


def _times(ratio: Spread) -> str:
    return f"{significant(ratio.median)}× ({significant(ratio.low)}–{significant(ratio.high)})"


def bulk(shown: Shown) -> Iterator[Block]:
    """Many images in one request, compared with in process."""
    rows = shown.rows(BulkMeasurement)
    if not rows:
        return
    yield (
        "Raw pixels, the server on one core and the client on another; ONNX Runtime in process "
        "ran on the server's core. Rounds interleave the ways. Shares are of the same round's rate "
        "in process, by the faster of the two ways there."
    )
    columns: list[Column[Row[BulkMeasurement]]] = [
        words("Model", lambda row: row.model),
        Column("Images a request", lambda row: str(row.measurement.images)),
        Column("Rounds", lambda row: str(len(row.measurement.in_process))),
        Column("In process, one run, images/s", lambda row: _counts(row.measurement.in_process)),
        Column("In process, in the service's chunks, images/s",
               lambda row: _counts(row.measurement.in_process_chunks)),
        Column("/classify/batch, images/s", lambda row: _counts(row.measurement.classify_batch)),
        Column("of in process, %", lambda r: _share(r.measurement, r.measurement.classify_batch)),
        Column("v2 infer, images/s", lambda row: _counts(row.measurement.v2_infer)),
        Column("of in process, %", lambda row: _share(row.measurement, row.measurement.v2_infer)),
    ]  # fmt: skip
    yield Table(columns, rows, "bulk")


def _counts(rates: Sequence[float]) -> str:
    return spread_text(spread_of(rates), count)


def _share(found: BulkMeasurement, over_http: Sequence[float]) -> str:
    pairs = zip(over_http, found.best_in_process, strict=True)
    shares = [100 * mine / theirs for mine, theirs in pairs]
    return spread_text(spread_of(shares), count)


SECTIONS: Final = (
    Section(80, "Other servers", "the same model behind Triton, FastAPI, LitServe, …", peers, True),
    Section(82, "Many images in one request", "HTTP against in process", bulk),
)
