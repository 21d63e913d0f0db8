"""Section on replicas behind a balancer."""

from collections.abc import Iterator
from typing import Final

from bench.report.formats import NOTHING, count, significant
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.fleet import FleetMeasurement
from bench.rows.row import Row


def fleet(shown: Shown) -> Iterator[Block]:
    """Show what was done to the replicas, and which requests failed."""
    rows = shown.rows(FleetMeasurement)
    if not rows:
        return
    first = rows[0].measurement
    yield (
        f"{first.replicas} replicas in network namespaces behind {first.balancer} with the "
        "settings of `deploy/haproxy.cfg`; replicas, balancer and load generator share this "
        "machine. A gap is the longest time between two successive answers of the whole fleet. "
        "Back: until the replica got requests again, its restart included."
    )
    columns: list[Column[Row[FleetMeasurement]]] = [
        words("What was done", lambda row: row.measurement.title),
        Column("Times", lambda row: count(row.measurement.faults)),
        Column("Requests", lambda row: count(row.measurement.requests)),
        Column("Offered, requests/s", lambda row: significant(row.measurement.rate_per_s)),
        Column("Failed", lambda row: count(row.measurement.failed)),
        Column("Longest gap, s", lambda row: significant(row.measurement.longest_gap_s)),
        Column("Out after, s", lambda row: _longest(row.measurement.out_of_rotation_s)),
        Column("Sent to it", lambda row: count(row.measurement.sent_to_faulty)),
        Column("Back after, s", lambda row: _longest(row.measurement.back_s)),
        Column("p99 before, ms", lambda row: significant(row.measurement.quiet_p99_ms)),
        Column("p99, ms", lambda row: significant(row.measurement.p99_ms)),
        words("Promised", lambda row: row.measurement.promise),
        words("Held", lambda row: "; ".join(row.measurement.broken) or "yes"),
        Column("Machine's load", lambda row: significant(row.measurement.load_average)),
    ]
    yield Table(columns, rows)


def _longest(seconds: tuple[float, ...]) -> str:
    return significant(max(seconds)) if seconds else NOTHING


SECTIONS: Final = (Section(87, "Replicas behind a balancer", "what a fleet survives", fleet),)
