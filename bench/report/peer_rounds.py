"""Rounds of a comparison with other servers: medians, spreads and ratios.

A ratio compares two figures of the same round, because a slow moment of the machine affects both.
The median of the ratios is not the ratio of the medians.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bench.report.shown import Shown
from bench.rows.kinds.service import PeerFailureMeasurement, PeerMeasurement
from bench.rows.selection import rows_of
from bench.statistics.samples import Spread, spread_of

Figure = Callable[[PeerMeasurement], float | None]


@dataclass(frozen=True)
class Comparison:
    """Rows of one session about one model."""

    model: str
    rounds: dict[str, dict[int, PeerMeasurement]]
    """Measurement by name of the server and by round, in the order measured."""
    failures: tuple[PeerFailureMeasurement, ...]

    @property
    def all_rounds(self) -> list[PeerMeasurement]:
        """All rounds of all servers."""
        return [one for rounds in self.rounds.values() for one in rounds.values()]

    def first(self, name: str) -> PeerMeasurement:
        """Return a server's first round, for what does not change from round to round."""
        return next(iter(self.rounds[name].values()))

    def spread(self, name: str, figure: Figure) -> Spread | None:
        """Return the spread of one figure; None if no round has it."""
        found = map(figure, self.rounds.get(name, {}).values())
        return spread_of([value for value in found if value is not None])

    def ratio(self, above: str, below: str, figure: Figure) -> Spread | None:
        """Return ``above`` over ``below`` in the rounds that have both; None if none has."""
        found = []
        for number, upper in self.rounds.get(above, {}).items():
            lower = self.rounds.get(below, {}).get(number)
            top = figure(upper)
            bottom = figure(lower) if lower is not None else None
            if top is not None and bottom:
                found.append(top / bottom)
        return spread_of(found)


def comparisons(shown: Shown) -> list[Comparison]:
    """Return the newest session of each shown model, a quick one only if there is no other."""
    rows = shown.of_shown_files(rows_of(shown.results.rows, PeerMeasurement))
    failed = shown.of_shown_files(rows_of(shown.results.rows, PeerFailureMeasurement))
    sessions: dict[str, tuple[bool, str, str]] = {}
    for row in rows:
        newer = (not row.quick, row.created, row.run_id)
        sessions[row.model] = max(newer, sessions.get(row.model, newer))
    found = []
    for model, (_, _, session) in sessions.items():
        rounds: dict[str, dict[int, PeerMeasurement]] = {}
        for row in rows:
            if (row.model, row.run_id) == (model, session):
                one = row.measurement
                rounds.setdefault(one.name, {})[one.round] = one
        failures = {
            row.measurement.name: row.measurement
            for row in failed
            if (row.model, row.run_id) == (model, session)
        }
        found.append(Comparison(model, rounds, tuple(failures.values())))
    return found
