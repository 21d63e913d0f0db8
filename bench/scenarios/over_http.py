"""The scenarios against a running service, by the generator of :mod:`bench.load.loops`."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Protocol

from bench.load.loops import Sent, closed_loop, open_loop, run_timed
from bench.measure.progress import Progress, silent
from bench.rows.kinds.scenario import Scenario, ScenarioMeasurement
from bench.scenarios.rules import (
    IMAGES_PER_MULTI_STREAM_QUERY,
    SCENARIOS,
    ScenarioPlan,
    Setting,
    assess_try,
    describe,
)
from bench.statistics.rate_search import RateTry, search_rate
from cifar10.errors import BenchError

_CONNECTIONS: Final = 16


class Client(Protocol):
    """What sends: :class:`bench.load.client.HttpClient`, or a test's fake."""

    async def send(self, number: int) -> int:
        """Send request ``number``; its HTTP status, 0 without an answer."""

    async def open_connections(self, count: int) -> None:
        """Have so many connections ready."""

    def close(self) -> None:
        """End them."""


Run = Callable[[Coroutine[Any, Any, Sent]], tuple[Sent, float]]
"""Runs a loop; what it sent, and the generator's CPU share."""


class OverHttp:
    """Runs scenarios on one service.

    Args:
        client: sends requests.
        device: where the server says the model runs.
        plan: how long.
        check: raises when the server has died.
        run: runs the event loop.
    """

    def __init__(
        self,
        client: Client,
        device: str,
        plan: ScenarioPlan = ScenarioPlan(),
        check: Callable[[], None] = lambda: None,
        run: Run = run_timed,
    ) -> None:
        self._client = client
        self._plan = plan
        self._check = check
        self._run = run
        self._setting = Setting("http", device, plan)

    def run(self, progress: Progress = silent) -> Iterator[ScenarioMeasurement]:
        """Each scenario's measurement, as soon as it is known.

        Raises:
            BenchError: the server died, or answered nothing.
        """
        for position, scenario in enumerate(SCENARIOS):
            progress(scenario, position, len(SCENARIOS))
            yield self._server(progress) if scenario == "server" else self._closed(scenario)

    def _closed(self, scenario: Scenario) -> ScenarioMeasurement:
        users = self._plan.offline_users if scenario == "offline" else 1
        size = IMAGES_PER_MULTI_STREAM_QUERY if scenario == "multi_stream" else 1
        whole, cpu_share = self._closed_run(users, self._plan.seconds, size)
        sent, span_s = whole.after(self._plan.warm_up_seconds), None
        if scenario == "offline":  # many are in flight at both ends: count answers, not queries
            span_s = (self._plan.warm_up_seconds, self._plan.warm_up_seconds + self._plan.seconds)
            sent = whole.answered_within(*span_s)
        _require_answers(sent, scenario)
        return describe(
            self._setting,
            scenario,
            sent,
            warm_up_queries=int(whole.due_s.size - sent.due_s.size),
            images_per_query=size,
            concurrency=users,
            cpu_share=cpu_share,
            span_s=span_s,
        )

    def _closed_run(self, users: int, seconds: float, size: int = 1) -> tuple[Sent, float]:
        return self._run(
            self._with_connections(
                closed_loop(
                    self._client.send,
                    users,
                    self._plan.warm_up_seconds + seconds,
                    requests_per_query=size,
                    check=self._check,
                ),
                users * size,
            )
        )

    def _server(self, progress: Progress) -> ScenarioMeasurement:
        plan = self._plan
        # The first try needs only the right order of magnitude; the search finds the rest.
        whole, _ = self._closed_run(plan.offline_users, plan.warm_up_seconds)
        capacity = whole.after(plan.warm_up_seconds)
        _require_answers(capacity, "server")
        span_s = float(capacity.done_s.max() - capacity.due_s.min())
        runs: list[tuple[Sent, int, float]] = []

        def attempt(rate_per_s: float) -> RateTry:
            progress(f"server, {rate_per_s:.0f} queries/s", len(runs), plan.search.tries)
            whole, cpu_share = self._run(
                self._with_connections(
                    open_loop(
                        self._client.send,
                        rate_per_s,
                        plan.try_warm_up_seconds + plan.try_seconds,
                        seed=plan.seed + len(runs),
                        check=self._check,
                    ),
                    _CONNECTIONS,
                )
            )
            sent = whole.after(plan.try_warm_up_seconds)
            runs.append((sent, int(whole.due_s.size - sent.due_s.size), cpu_share))
            return assess_try(sent, rate_per_s, plan)

        found, tries = search_rate(attempt, int(capacity.succeeded.sum()) / span_s / 2, plan.search)
        sent, warm_up_queries, cpu_share = runs[-1]
        return describe(
            self._setting,
            "server",
            sent,
            warm_up_queries=warm_up_queries,
            rate_per_s=found.rate_per_s if found else None,
            tries=tries,
            cpu_share=cpu_share,
        )

    async def _with_connections(self, work: Coroutine[Any, Any, Sent], count: int) -> Sent:
        """The loop's own connections: they cannot outlive it."""
        try:
            await self._client.open_connections(count)
            return await work
        finally:
            work.close()
            self._client.close()


def _require_answers(sent: Sent, scenario: str) -> None:
    if not sent.succeeded.any():
        message = f"no request of {scenario} succeeded ({sent.succeeded.size} were sent)"
        raise BenchError(message)
