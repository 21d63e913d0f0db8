"""Measure one server in one round: start it on its core, check it, drive it and stop it.

The server and the load generator (this process) have separate cores, so that neither takes time
from the other.
"""

import os
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from bench.load.client import HttpClient
from bench.load.drive import Driver
from bench.load.sent import Sent
from bench.peers.catalogue import FOLDER, OURS, Peer
from bench.peers.environments import programs_of, version_of
from bench.peers.questions import check_same
from bench.rows.kinds.service import PeerMeasurement
from bench.serving.cores import Cores, on_cores, pinned
from bench.serving.process import Server
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import BenchError

TOLERANCE: Final = 1e-4
"""Allowed difference between a server's probabilities and those computed in process."""
_ANSWER_TIMEOUT_SECONDS: Final = 5.0
_START_TIMEOUT_SECONDS: Final = 180.0
"""Start-up time allowed. Ray starts half a dozen processes on the one core."""
_MOST_CEILING_RATE: Final = 2_000.0
"""Open-loop requests per second against the ceiling server.

Only its closed loop matters. An open loop that falls behind opens connections until there are no
file descriptors left.
"""
_HELLO: Final = b'{"name": "you"}'
_SHOWN_BODY: Final = 200


@dataclass(frozen=True)
class PeerPlan:
    """Durations and rates of one round of a server."""

    rounds: int = 5
    connections: int = 32
    warm_up_seconds: float = 1.0
    seconds: float = 4.0
    """Duration of the closed loop."""
    one_client_seconds: float = 1.0
    half_load_seconds: float = 4.0
    half_load_warm_up_seconds: float = 0.5
    common_rate_per_s: float = 200.0
    """Rate of a second open loop of the same duration, which most servers can sustain."""
    open_connections: int = 256
    """Number of connections opened before an open loop starts.

    A server that falls behind for a moment has more open requests than callers. Its speed of
    accepting connections must not count.
    """
    checked_images: int = 20
    """Number of images that must be answered correctly before anything is measured."""
    seed: int = 0


QUICK_PEER_PLAN: Final = PeerPlan(
    rounds=2,
    warm_up_seconds=0.5,
    seconds=1.0,
    one_client_seconds=0.5,
    half_load_seconds=1.0,
    half_load_warm_up_seconds=0.2,
)


@dataclass(frozen=True)
class Subject:
    """The model and images used for all servers."""

    name: str
    models: Path
    onnx: Path
    jpegs: Sequence[bytes]
    """JPEG files, 32 × 32."""
    expected: NDArray[np.float32]
    """Probabilities, float32 (N, 10), that the model computes in process for the first JPEGs."""


def title_of(peer: Peer) -> str:
    """Return the peer's title, with its version unless it is this service."""
    if peer.folder is None or peer.package is None:
        return peer.title
    return f"{peer.title} {version_of(peer.folder, peer.package)}"


def measure_peer(
    peer: Peer, subject: Subject, plan: PeerPlan, round_number: int, cores: Cores
) -> PeerMeasurement:
    """Start a server, measure it and stop it.

    Raises:
        BenchError: it cannot be installed, does not start, gives another answer, or dies.
    """
    with pinned(cores.generator), start(peer, subject, cores) as server:
        load: Mapping[str, Any] = _NO_LOAD
        if peer.role != "start only":
            route = peer.route.replace("{model}", subject.name)
            if peer.role != "ceiling":
                for jpeg, expected in zip(subject.jpegs, subject.expected, strict=False):
                    check_same(_ask(server.url, route, peer, jpeg), expected, TOLERANCE, peer.title)
            load = _drive(peer, server, route, subject.jpegs, plan, round_number)
        return PeerMeasurement(
            name=peer.name,
            server=title_of(peer),
            role=peer.role,
            decoder=peer.decoder,
            sends=peer.form.question.title,
            round=round_number,
            worker_cores=1,
            ready_seconds=round(server.ready_seconds, 3),
            resident_bytes=server.memory_bytes(),
            **load,
        )


def start(peer: Peer, subject: Subject, cores: Cores) -> Server:
    """Return the server's process, pinned to its core but not yet started.

    Raises:
        PeerUnavailableError: its environment cannot be built.
    """
    programs = str(programs_of(peer.folder)) if peer.folder else ""
    route = peer.route.replace("{model}", subject.name)
    question = peer.form.question
    content_type, headers = question.content_type, question.headers
    body = peer.form.body(subject.jpegs[0])
    if peer.role == "start only":
        content_type, headers, body = "application/json", {}, _HELLO

    def is_ready(url: str) -> bool:
        try:
            answer = _post(f"{url}{route}", body, content_type, headers)
            return answer.status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    settings = {"CIFAR10_ENGINE": "onnxruntime"}  # as the peers
    if peer.folder is not None:
        settings = {
            "PEER_MODEL": str(subject.onnx.resolve()),
            "PEER_DECODER": "ours" if peer.decoder == OURS else "own",
            "PYTHONPATH": str(PROJECT_ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "80",  # its default of 30 s is too short on a busy core
            # PyTriton's Python backend loads libpython by name; it must find this Python's.
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR") or ""),
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        }
    return Server(
        subject.models,
        load=(subject.name,),
        device="cpu",
        command=[
            *on_cores((cores.server,)),
            *(part.replace("{bin}", programs) for part in peer.command),
        ],
        settings=settings | dict(peer.settings),
        folder=FOLDER / peer.folder if peer.folder else PROJECT_ROOT,
        ready=is_ready,
        start_timeout_seconds=_START_TIMEOUT_SECONDS,
    )


def _post(url: str, body: bytes, content_type: str, headers: Mapping[str, str]) -> httpx.Response:
    sent = {"Content-Type": content_type, **headers}
    return httpx.post(url, content=body, headers=sent, timeout=_ANSWER_TIMEOUT_SECONDS)


def _ask(url: str, route: str, peer: Peer, jpeg: bytes) -> Any:
    """Return the peer's response for one image.

    Raises:
        BenchError: there is no response, or it has the wrong format.
    """
    question = peer.form.question
    try:
        answer = _post(
            f"{url}{route}", peer.form.body(jpeg), question.content_type, question.headers
        )
    except httpx.HTTPError as error:
        message = f"{peer.title} does not answer: {error}"
        raise BenchError(message) from error
    if answer.status_code != httpx.codes.OK:
        message = f"{peer.title} answered {answer.status_code}: {answer.text[:_SHOWN_BODY]}"
        raise BenchError(message)
    try:
        return peer.form.read(answer.content, answer.headers)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        shown = answer.content[:_SHOWN_BODY]
        message = f"{peer.title}: response has the wrong format ({error}): {shown!r}"
        raise BenchError(message) from error


_NO_LOAD: Final[Mapping[str, Any]] = {
    "connections": 0,
    "seconds": 0.0,
    "requests": 0,
    "failed_requests": 0,
    "saturated_p50_ms": None,
    "saturated_p99_ms": None,
    "cpu_us_per_request": None,
    "one_client_p50_ms": None,
    "half_load_rate_per_s": None,
    "half_load_requests": 0,
    "half_load_p50_ms": None,
    "half_load_p99_ms": None,
    "common_rate_per_s": None,
    "common_rate_p50_ms": None,
    "common_rate_p99_ms": None,
    "generator_cpu_share": None,
}
"""Load figures of a server that is only started."""


def _drive(
    peer: Peer,
    server: Server,
    route: str,
    jpegs: Sequence[bytes],
    plan: PeerPlan,
    round_number: int,
) -> dict[str, Any]:
    """Return load figures at full speed, with one client, at half its rate and at a common rate."""
    question = peer.form.question
    bodies = [peer.form.body(jpeg) for jpeg in jpegs]
    client = HttpClient(server.url, route, bodies, question.content_type, question.headers)
    driver = Driver(client, server.check_alive)

    def open_for(rate: float) -> Sent:
        warm_up = plan.half_load_warm_up_seconds
        driven = driver.open(
            rate,
            warm_up + plan.half_load_seconds,
            seed=plan.seed + round_number,
            connections=plan.open_connections,
        )
        return driven.sent.after(warm_up)

    warm = driver.closed(plan.connections, plan.warm_up_seconds).sent
    cpu_before = server.cpu_seconds()
    driven = driver.closed(plan.connections, plan.seconds)
    cpu_seconds = server.cpu_seconds() - cpu_before
    full = driven.sent
    within = full.answered_within(0, plan.seconds)
    within.require_answers(f"{plan.connections} clients")
    alone = driver.closed(1, plan.one_client_seconds).sent
    rate = full.request_rate(plan.seconds) / 2
    if peer.role == "ceiling":
        rate = min(rate, _MOST_CEILING_RATE)
    half = open_for(rate)
    common = open_for(plan.common_rate_per_s) if rate > plan.common_rate_per_s / 2 else None
    return {
        "connections": plan.connections,
        "seconds": plan.seconds,
        "requests": within.answered,
        "failed_requests": sum(one.failed for one in (warm, full, alone, half, common) if one),
        "saturated_p50_ms": within.percentile_ms(50),
        "saturated_p99_ms": within.percentile_ms(99),
        "cpu_us_per_request": round(1e6 * cpu_seconds / full.answered, 1),
        "one_client_p50_ms": alone.percentile_ms(50),
        "half_load_rate_per_s": round(rate, 1),
        "half_load_requests": half.answered,
        "half_load_p50_ms": half.percentile_ms(50),
        "half_load_p99_ms": half.percentile_ms(99),
        "common_rate_per_s": plan.common_rate_per_s if common else None,
        "common_rate_p50_ms": common.percentile_ms(50) if common else None,
        "common_rate_p99_ms": common.percentile_ms(99) if common else None,
        "generator_cpu_share": round(driven.cpu_share, 3),
    }
