"""Load on several running services in interleaved short windows.

On a shared machine, speed varies from minute to minute by more than most changes under test.
Interleaved windows of about a second expose all sides to the same conditions.
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
    """Requests sent in every window.

    Args:
        images: uint8 (N, height, width, 3), RGB: posted as PNG, one a request.
        model: model to request.
        device: device it runs on, for the rows.
    """

    def __init__(
        self, images: NDArray[np.uint8], *, model: str, device: str, plan: LoadPlan
    ) -> None:
        self._bodies = [encode_png(image) for image in images[:IMAGE_COUNT]]
        self._route = classify_route(model)
        self._device = device
        self._plan = plan

    def measure(self, server: Server) -> LoadMeasurement:
        """Measure one window on one service, over new connections.

        Their distribution over the workers is random in each window.

        Raises:
            BenchError: the server died, or sent no response.
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
    """Yield (round, side, measurement): a window on every side in every round, in order."""
    for number in range(rounds):
        for side, server in windows:
            yield number, side, window.measure(server)
