"""Run the scenarios against a running service with :mod:`bench.load.drive`."""

from collections.abc import Iterator

from bench.load.drive import Driver
from bench.load.sent import Sent
from bench.measure.progress import Progress, silent
from bench.rows.kinds.speed import SCENARIOS, Scenario, ScenarioMeasurement
from bench.scenarios.rules import (
    IMAGES_PER_MULTI_STREAM_QUERY,
    ScenarioPlan,
    Setting,
    describe,
    search_server_rate,
)


class OverHttp:
    """Runs scenarios on one service.

    Args:
        device: device that the server reports for the model.
    """

    def __init__(self, driver: Driver, device: str, plan: ScenarioPlan = ScenarioPlan()) -> None:
        self._driver = driver
        self._plan = plan
        self._setting = Setting("http", device, plan)

    def run(self, progress: Progress = silent) -> Iterator[ScenarioMeasurement]:
        """Yield each scenario's measurement as soon as it is known.

        Raises:
            BenchError: the server died, or sent no response.
        """
        for position, scenario in enumerate(SCENARIOS):
            progress(scenario, position, len(SCENARIOS))
            yield self._server(progress) if scenario == "server" else self._closed(scenario)

    def _closed(self, scenario: Scenario) -> ScenarioMeasurement:
        plan = self._plan
        users = plan.offline_users if scenario == "offline" else 1
        size = IMAGES_PER_MULTI_STREAM_QUERY if scenario == "multi_stream" else 1
        end_s = plan.warm_up_seconds + plan.seconds
        driven = self._driver.closed(users, end_s, requests_per_query=size)
        whole, span_s = driven.sent, None
        sent = whole.after(plan.warm_up_seconds)
        if scenario == "offline":  # many are in flight at both ends: count responses, not queries
            span_s = (plan.warm_up_seconds, end_s)
            sent = whole.answered_within(*span_s)
        sent.require_answers(scenario)
        return describe(
            self._setting,
            scenario,
            sent,
            warm_up_queries=whole.queries - sent.queries,
            images_per_query=size,
            concurrency=users,
            cpu_share=driven.cpu_share,
            span_s=span_s,
        )

    def _server(self, progress: Progress) -> ScenarioMeasurement:
        plan = self._plan
        # The first try needs only the right order of magnitude; the search finds the rest.
        whole = self._driver.closed(plan.offline_users, 2 * plan.warm_up_seconds).sent
        capacity = whole.after(plan.warm_up_seconds)
        capacity.require_answers("server")
        span_s = float(capacity.done_s.max() - capacity.due_s.min())

        def offer(rate_per_s: float, seconds: float, seed: int) -> tuple[Sent, float]:
            driven = self._driver.open(rate_per_s, seconds, seed=seed)
            return driven.sent, driven.cpu_share

        return search_server_rate(self._setting, offer, capacity.answered / span_s / 2, progress)
