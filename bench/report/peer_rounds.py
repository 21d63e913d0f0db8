"""What the rounds of a comparison come to: medians, spreads, and ratios of the same round.

Pure functions of rows. A ratio is of two figures of one round, because what slows the machine in a
round slows both; the median of the ratios is not the ratio of the medians.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.rows.kinds.service import PeerFailureMeasurement, PeerMeasurement
from bench.rows.row import Row
from bench.statistics.samples import Spread, spread_of


@dataclass(frozen=True)
class Comparison:
    """One session's rows on one model."""

    model: str
    rounds: dict[str, dict[int, PeerMeasurement]]
    """Name → round → what was measured; in the order in which they first came."""
    failures: tuple[PeerFailureMeasurement, ...]

    def first(self, name: str) -> PeerMeasurement:
        """What does not change from round to round."""
        return next(iter(self.rounds[name].values()))

    def spread(self, name: str, figure: Callable[[PeerMeasurement], float | None]) -> Spread | None:
        """Of one figure; None where no round has it."""
        return spread_of(
            [
                value
                for found in self.rounds.get(name, {}).values()
                if (value := figure(found)) is not None
            ]
        )

    def ratio(
        self,
        above: str,
        below: str,
        figure: Callable[[PeerMeasurement], float | None],
    ) -> Spread | None:
        """``above`` over ``below``, of the rounds that have both; None where none has."""
        found = []
        for number, upper in self.rounds.get(above, {}).items():
            lower = self.rounds.get(below, {}).get(number)
            top = figure(upper)
            bottom = figure(lower) if lower is not None else None
            if top is not None and bottom:
                found.append(top / bottom)
        return spread_of(found)


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Of each model the newest session: a whole one, or a quick one where there is no other."""
    peer_rows = [row for row in rows if row.kind in ("peer", "peer_failure")]
    sessions: dict[str, tuple[bool, str, str]] = {}
    for row in peer_rows:
        if isinstance(row.measurement, PeerMeasurement):
            newer = (not row.quick, row.created, row.run_id)
            sessions[row.model] = max(newer, sessions.get(row.model, newer))
    found = []
    for model, (_, _, session) in sessions.items():
        mine = [row for row in peer_rows if row.model == model and row.run_id == session]
        rounds: dict[str, dict[int, PeerMeasurement]] = {}
        failures: dict[str, PeerFailureMeasurement] = {}
        for row in mine:
            match row.measurement:
                case PeerMeasurement() as measured:
                    rounds.setdefault(measured.name, {})[measured.round] = measured
                case PeerFailureMeasurement() as failure:
                    failures[failure.name] = failure
        found.append(Comparison(model, rounds, tuple(failures.values())))
    return found
