"""Locust's users: they post real test images, each the next one on the last answer.

Run by ``cifar10 bench load``, or by hand (``images.zip`` holds one image file per entry):

    locust -f bench/load/locustfile.py --images images.zip --host http://127.0.0.1:3000
    locust ... --processes 2                 several processes, when one is not enough
    locust ... --rate 200 --shape poisson    all users together at 200 requests/s, not flat out

With ``--rate`` R, each of the U users sends R / U requests a second at moments of its own; together
these are Poisson arrivals at R (with ``constant``, each user sends at even distances). A user that
is still waiting for an answer sends late; with enough users this hardly happens.

Locust rounds its percentiles to two digits, so every request's time is kept here and written to
``--samples`` at the end: an ``.npz`` with float64 ``start_s`` (Unix time), float64 ``response_ms``,
int16 ``status`` (0: no answer), and scalars ``cpu_s`` and ``wall_s`` of this process during the
test (with ``--processes``, one file for each). Locust patches sockets on import: no other module
may import this one.
"""

import itertools
import os
import random
import time
import zipfile
from array import array
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from locust import FastHttpUser, events, task
from locust.runners import MasterRunner, WorkerRunner

START_S = array("d")
RESPONSE_MS = array("d")
STATUS = array("h")
IMAGES: list[bytes] = []
CLOCKS: dict[str, tuple[float, float]] = {}
"""(CPU time of this process, wall time) in seconds, at the ``start`` and ``stop`` of the test."""


def add_options(parser: Any, **_: Any) -> None:
    """Add our options to Locust's own."""
    parser.add_argument("--images", required=True, help="zip of image files to post")
    parser.add_argument("--samples", default="", help="where to write every request's time (.npz)")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests/s of all users together; 0: flat out"
    )
    parser.add_argument("--shape", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--route", default="/classify", help="path and query to post to")


def update_clock(**_: Any) -> None:
    """Let the run time begin now. gevent's timers count from when it last read its clock, which was
    before Locust's imports; on a busy machine these take longer than a short run."""
    gevent.get_hub().loop.update_now()


def read_images(environment: Any, **_: Any) -> None:
    """Read all images into memory before the first request."""
    with zipfile.ZipFile(environment.parsed_options.images) as archive:
        IMAGES.extend(archive.read(name) for name in archive.namelist())
    CLOCKS["start"] = (time.process_time(), time.perf_counter())


def keep_time(
    start_time: float, response_time: float, response: Any, exception: Any, **_: Any
) -> None:
    """Keep one request's start, duration and status, unrounded."""
    START_S.append(start_time)
    RESPONSE_MS.append(response_time)
    STATUS.append(int(getattr(response, "status_code", 0) or 0))


def stop_clocks(**_: Any) -> None:
    """Stop before Locust prints its statistics, which is not part of the load."""
    CLOCKS["stop"] = (time.process_time(), time.perf_counter())


def write_samples(environment: Any, **_: Any) -> None:
    """Write the samples, also after an interruption."""
    target = environment.parsed_options.samples
    if not target or "start" not in CLOCKS:
        return
    stop_cpu, stop_wall = CLOCKS.get("stop", (time.process_time(), time.perf_counter()))
    path = Path(target)
    if isinstance(environment.runner, MasterRunner | WorkerRunner):
        path = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        path,
        start_s=np.asarray(START_S),
        response_ms=np.asarray(RESPONSE_MS),
        status=np.asarray(STATUS),
        cpu_s=stop_cpu - CLOCKS["start"][0],
        wall_s=stop_wall - CLOCKS["start"][1],
    )
    # Locust's own exit code says whether requests failed; the samples say that better.
    environment.process_exit_code = 0


class Poster(FastHttpUser):  # type: ignore[misc]
    """User that posts images, starting at a random one: without pause, or when one is due."""

    _due_s = 0.0

    def wait_time(self) -> float:
        """Seconds until this user's next request is due; 0 without a rate, or when late."""
        options = self.environment.parsed_options
        if not options.rate:
            return 0.0
        gap_s = options.num_users / options.rate
        self._due_s += random.expovariate(1 / gap_s) if options.shape == "poisson" else gap_s
        return max(0.0, self._due_s - time.perf_counter())

    def on_start(self) -> None:
        """Start at a random image: users must not post the same images in step."""
        first = random.randrange(len(IMAGES))  # noqa: S311 - nothing secret
        self._images = itertools.cycle(IMAGES[first:] + IMAGES[:first])
        self._route = self.environment.parsed_options.route
        options = self.environment.parsed_options
        self._due_s = time.perf_counter()
        if options.rate:  # not all of them in the first moment
            first_s = random.random() * options.num_users / options.rate  # noqa: S311
            self._due_s += first_s
            time.sleep(first_s)  # gevent's: only this user waits

    @task  # type: ignore[untyped-decorator]
    def classify(self) -> None:
        """Post one image as the raw body."""
        self.client.post(
            self._route,
            data=next(self._images),
            headers={"Content-Type": "image/png"},
            name="classify",
        )


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(update_clock)
events.test_start.add_listener(read_images)
events.request.add_listener(keep_time)
events.test_stop.add_listener(stop_clocks)
events.quitting.add_listener(write_samples)
