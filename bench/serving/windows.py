"""Several running services under load in turn: a short window on one, then on the next.

A shared machine is faster in one minute than in another, by more than most changes one looks for.
Windows of about a second, taken in turn, put all sides through the same minutes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.load.bodies import encode_png
from bench.load.client import HttpClient
from bench.load.drive import Driver
from bench.load.locust import LoadPlan
from bench.rows.kinds.service import LoadMeasurement
from bench.serving.load import IMAGE_COUNT, classify_route, summarise
from bench.serving.process import Server


class Window:
    """The requests of every window.

    Args:
        images: uint8 (N, 32, 32, 3), RGB: posted as PNG, one a request.
        model: which one to ask for.
        device: where it runs, for the rows.
        plan: users, seconds and warm-up of one window.
    """

    def __init__(
        self, images: NDArray[np.uint8], *, model: str, device: str, plan: LoadPlan
    ) -> None:
        self._bodies = [encode_png(image) for image in images[:IMAGE_COUNT]]
        self._route = classify_route(model)
        self._device = device
        self._plan = plan

    def measure(self, server: Server) -> LoadMeasurement:
        """One window on one service, over connections of its own: how they fall on the workers is
        drawn anew each time.

        Raises:
            BenchError: the server died, or answered nothing.
        """
        plan, before = self._plan, server.cpu_seconds()
        client = HttpClient(server.url, self._route, self._bodies)
        driven = Driver(client, server.check_alive).closed(
            plan.users, plan.warm_up_seconds + plan.seconds
        )
        seconds = server.cpu_seconds() - before
        return summarise(driven, plan, device=self._device, server_cpu_seconds=seconds)


def take_turns(
    windows: Sequence[tuple[str, Server]], window: Window, rounds: int
) -> Iterator[tuple[int, str, LoadMeasurement]]:
    """(round, side, measurement): a window on every side in every round, in order."""
    for number in range(rounds):
        for side, server in windows:
            yield number, side, window.measure(server)
