"""Locust users that post real test images, each sending its next one after the last response.

``cifar10 bench load`` runs this file. It also runs by hand (``images.zip`` has one image file per
entry):

    locust -f bench/load/locustfile.py --images images.zip --host http://127.0.0.1:3000
    locust ... --processes 2                 several processes, when one is not enough
    locust ... --rate 200 --shape poisson    all users together at 200 requests/s

With ``--rate`` R, each of the U users sends R / U requests a second at independent times; together
these are Poisson arrivals at R (with ``constant``, each user sends at equal intervals). A user that
is still waiting for a response sends late; with enough users this is rare.

Locust rounds its percentiles to two digits, so every request's time is recorded here and written
to ``--samples`` at the end: an ``.npz`` with float64 ``start_s`` (Unix time), float64
``response_ms``, int16 ``status`` (0: no response), and scalars ``cpu_s`` and ``wall_s`` of
this process during the test (with ``--processes``, one file for each). Workers on other hosts send
theirs to the master, whose file has them all. Locust patches sockets on import: no other module
may import this one.
"""

import itertools
import logging
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
from locust.rpc import Message
from locust.runners import MasterRunner, WorkerRunner

_LAST_SECONDS = 15
LOGGER = logging.getLogger(__name__)
START_S = array("d")
RESPONSE_MS = array("d")
STATUS = array("h")
IMAGES: list[bytes] = []
IMAGES_FILE: list[str] = []
"""This process's own ``--images``, before a master's options replace it."""
REMOTE: list[bool] = []
"""Not empty in a worker whose master is on another host."""
OTHERS: dict[str, tuple[float, float, bool]] = {}
"""On the master: CPU time and wall time of each remote worker, and whether it has ended."""
CLOCKS: dict[str, tuple[float, float]] = {}
"""(CPU time of this process, wall time) in seconds, at the ``start`` and ``stop`` of the test."""


def add_options(parser: Any, **_: Any) -> None:
    """Add this project's options to Locust's own."""
    parser.add_argument("--images", required=True, help="zip of image files to post")
    parser.add_argument("--samples", default="", help="file for every request's time (.npz)")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests/s of all users together; 0: full speed"
    )
    parser.add_argument("--shape", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--route", default="/classify", help="path and query to post to")


def update_clock(environment: Any, **_: Any) -> None:
    """Start the run time now, and remember this process's own images.

    gevent's timers count from its last clock reading, which was before Locust's imports. On a busy
    machine these take longer than a short run.
    """
    gevent.get_hub().loop.update_now()
    if environment is not None:
        IMAGES_FILE.append(environment.parsed_options.images)
        REMOTE.extend([True] * is_remote(environment.runner, environment.parsed_options))


def read_images(environment: Any, **_: Any) -> None:
    """Read all images into memory before the first request."""
    with zipfile.ZipFile(IMAGES_FILE[0]) as archive:
        IMAGES.extend(archive.read(name) for name in archive.namelist())
    CLOCKS["start"] = (time.process_time(), time.perf_counter())


def keep_time(
    start_time: float, response_time: float, response: Any, exception: Any, **_: Any
) -> None:
    """Record one request's start, duration and status, unrounded."""
    START_S.append(start_time)
    RESPONSE_MS.append(response_time)
    STATUS.append(int(getattr(response, "status_code", 0) or 0))


def stop_clocks(**_: Any) -> None:
    """Stop the clocks before Locust prints its statistics, which are not part of the load."""
    CLOCKS["stop"] = (time.process_time(), time.perf_counter())


def elapsed() -> tuple[float, float]:
    """Return CPU and wall time of this process in the test."""
    start_cpu, start_wall = CLOCKS["start"]
    cpu, wall = CLOCKS.get("stop", (time.process_time(), time.perf_counter()))
    return cpu - start_cpu, wall - start_wall


def is_remote(runner: Any, options: Any) -> bool:
    """Return whether this is a worker whose master is on another host."""
    return isinstance(runner, WorkerRunner) and not options.processes


def send_samples(data: dict[str, Any], **_: Any) -> None:
    """Add a remote worker's samples to its report to the master."""
    if not REMOTE or "start" not in CLOCKS:
        return
    data["samples"] = [part.tobytes() for part in (START_S, RESPONSE_MS, STATUS)]
    data["elapsed"] = elapsed()
    data["ended"] = "stop" in CLOCKS
    for part in (START_S, RESPONSE_MS, STATUS):
        del part[:]


def keep_samples(client_id: str, data: dict[str, Any], **_: Any) -> None:
    """Keep the samples of a remote worker's report."""
    arrays: tuple[array[Any], ...] = (START_S, RESPONSE_MS, STATUS)
    for part, more in zip(arrays, data.get("samples", ()), strict=False):
        part.frombytes(more)
    if "elapsed" in data:
        OTHERS[client_id] = (*data["elapsed"], data["ended"])


def collect(environment: Any, **_: Any) -> None:
    """End the remote workers and wait for their last samples; Locust itself waits half a second."""
    runner = environment.runner
    if not isinstance(runner, MasterRunner) or environment.parsed_options.processes:
        return
    clients = [client.id for client in runner.clients.all]
    for client in clients:
        runner.server.send_to_client(Message("quit", None, client))
    with gevent.Timeout(_LAST_SECONDS, False):
        while not all(OTHERS.get(client, (0, 0, False))[2] for client in clients):
            gevent.sleep(0.05)


def write_samples(environment: Any, **_: Any) -> None:
    """Write the samples, even after an interruption; not in a remote worker."""
    options, runner = environment.parsed_options, environment.runner
    if not options.samples or "start" not in CLOCKS or is_remote(runner, options):
        return
    late = sum(not ended for _, _, ended in OTHERS.values())
    if late:
        LOGGER.error("the last samples of %d workers did not arrive", late)
        return
    path = Path(options.samples)
    if options.processes:
        path = path.with_suffix(f".{os.getpid()}.npz")
    cpu_s, wall_s = elapsed()
    if OTHERS:
        cpu_s = sum(cpu for cpu, _, _ in OTHERS.values()) / len(OTHERS)
        wall_s = max(wall for _, wall, _ in OTHERS.values())
    np.savez(
        path,
        start_s=np.asarray(START_S),
        response_ms=np.asarray(RESPONSE_MS),
        status=np.asarray(STATUS),
        cpu_s=cpu_s,
        wall_s=wall_s,
    )
    # Locust's exit code reports failed requests; the samples are more precise.
    environment.process_exit_code = 0


class Poster(FastHttpUser):  # type: ignore[misc]
    """User that posts images, starting at a random one, without pause or when one is due."""

    _due_s = 0.0

    def wait_time(self) -> float:
        """Return the seconds until this user's next request; 0 without a rate, or when late."""
        options = self.environment.parsed_options
        if not options.rate:
            return 0.0
        gap_s = options.num_users / options.rate
        self._due_s += random.expovariate(1 / gap_s) if options.shape == "poisson" else gap_s
        return max(0.0, self._due_s - time.perf_counter())

    def on_start(self) -> None:
        """Start at a random image, so that users do not post the same images in step."""
        first = random.randrange(len(IMAGES))  # noqa: S311 - nothing secret
        self._images = itertools.cycle(IMAGES[first:] + IMAGES[:first])
        self._route = self.environment.parsed_options.route
        options = self.environment.parsed_options
        self._due_s = time.perf_counter()
        if options.rate:  # do not send all first requests at once
            first_s = random.random() * options.num_users / options.rate  # noqa: S311
            self._due_s += first_s
            time.sleep(first_s)  # gevent's sleep: only this user waits

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
events.test_stop.add_listener(collect)
events.report_to_master.add_listener(send_samples)
events.worker_report.add_listener(keep_samples)
events.quitting.add_listener(write_samples)
