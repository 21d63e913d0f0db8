"""One server in one round: started on its core, checked, driven, weighed and stopped.

The server has one core and the load generator, which is this process, another, so that neither
takes time from the other.
"""

import os
import sysconfig
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from bench.load.client import HttpClient
from bench.load.loops import Sent, closed_loop, open_loop, run_timed
from bench.peers.catalogue import FOLDER, OURS, Peer
from bench.peers.environments import programs_of, version_of
from bench.peers.questions import check_same
from bench.rows.kinds.peer import PeerMeasurement
from bench.serving.cores import Cores, on_cores, pinned
from bench.serving.process import Server
from bench.statistics.samples import percentile
from cifar10.environment import PROJECT_ROOT
from cifar10.errors import BenchError

TOLERANCE: Final = 1e-4
"""Between a server's probabilities and those in process."""
_ANSWER_TIMEOUT_SECONDS: Final = 5.0
_START_TIMEOUT_SECONDS: Final = 180.0
"""Ray starts half a dozen processes on the one core."""
_MOST_CEILING_RATE: Final = 2_000.0
"""Requests per second of the ceiling's open loop: it is there for the closed one, and a loop that
falls behind opens connections until there are no more file descriptors."""
_HELLO: Final = b'{"name": "you"}'
_SHOWN_BODY: Final = 200


@dataclass(frozen=True)
class PeerPlan:
    """How long and how hard each server is driven in one round."""

    rounds: int = 5
    connections: int = 32
    warm_up_seconds: float = 1.0
    seconds: float = 4.0
    """Of the closed loop."""
    one_client_seconds: float = 1.0
    half_load_seconds: float = 4.0
    half_load_warm_up_seconds: float = 0.5
    common_rate_per_s: float = 200.0
    """Of a second open loop, as long as the first: most can do that."""
    open_connections: int = 256
    """Of the open loop, made before it starts: a server that is behind for a moment has more
    requests out than callers, and is not to be measured by how fast it accepts connections."""
    checked_images: int = 20
    """Whose answers must be the same before anything is measured."""
    seed: int = 0


QUICK_PEER_PLAN: Final = PeerPlan(
    rounds=2,
    warm_up_seconds=0.5,
    seconds=1.0,
    one_client_seconds=0.5,
    half_load_seconds=1.0,
    half_load_warm_up_seconds=0.2,
)

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
"""Of a server that is only started."""


@dataclass(frozen=True)
class Subject:
    """The model and the pictures that all servers are asked about."""

    name: str
    models: Path
    onnx: Path
    jpegs: Sequence[bytes]
    """32×32."""
    expected: NDArray[np.float32]
    """(N, 10): what this process makes of the first of them."""


def title_of(peer: Peer) -> str:
    """Its title, with the version where it is not ours."""
    if peer.folder is None or peer.package is None:
        return peer.title
    return f"{peer.title} {version_of(peer.folder, peer.package)}"


def measure_peer(
    peer: Peer, subject: Subject, plan: PeerPlan, round_number: int, cores: Cores
) -> PeerMeasurement:
    """Start it, measure it and stop it.

    Raises:
        BenchError: it cannot be installed, does not start, does not give the same answer, or dies.
    """
    with pinned(cores.generator), start(peer, subject, cores) as server:
        if peer.role == "start only":
            return _describe(peer, server, round_number)
        route = peer.route.replace("{model}", subject.name)
        if peer.role != "ceiling":
            for jpeg, expected in zip(subject.jpegs, subject.expected, strict=False):
                body, headers = _ask(server.url, route, peer, peer.form.body(jpeg))
                check_same(_read(peer, body, headers), expected, TOLERANCE, peer.title)
        return _drive(peer, server, route, subject.jpegs, plan, round_number)


def start(peer: Peer, subject: Subject, cores: Cores) -> Server:
    """The server's process, not yet started, that will be on its core.

    Raises:
        PeerUnavailableError: its environment cannot be made.
    """
    programs = str(programs_of(peer.folder)) if peer.folder else ""
    route = peer.route.replace("{model}", subject.name)
    first = peer.form.body(subject.jpegs[0])

    def is_ready(url: str) -> bool:
        if peer.role == "ceiling":
            return _answers(url, route, "image/jpeg", first, {})
        if peer.role == "start only":
            return _answers(url, route, "application/json", _HELLO, {})
        question = peer.form.question
        return _answers(url, route, question.content_type, first, question.headers)

    settings: dict[str, str] = {}
    if peer.folder is not None:
        settings = {
            "PEER_MODEL": str(subject.onnx.resolve()),
            "PEER_DECODER": "ours" if peer.decoder == OURS else "own",
            "PYTHONPATH": str(PROJECT_ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "80",  # its 30 s are short on a busy core
            # PyTriton's Python backend loads libpython by name: this Python's, not the system's.
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


def _answers(
    url: str, route: str, content_type: str, body: bytes, headers: Mapping[str, str]
) -> bool:
    try:
        answer = httpx.post(
            f"{url}{route}",
            content=body,
            headers={"Content-Type": content_type, **headers},
            timeout=_ANSWER_TIMEOUT_SECONDS,
        )
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


def _ask(url: str, route: str, peer: Peer, body: bytes) -> tuple[bytes, Mapping[str, str]]:
    question = peer.form.question
    try:
        answer = httpx.post(
            f"{url}{route}",
            content=body,
            headers={"Content-Type": question.content_type, **question.headers},
            timeout=_ANSWER_TIMEOUT_SECONDS,
        )
    except httpx.HTTPError as error:
        message = f"{peer.title} does not answer: {error}"
        raise BenchError(message) from error
    if answer.status_code != httpx.codes.OK:
        message = f"{peer.title} answered {answer.status_code}: {answer.text[:_SHOWN_BODY]}"
        raise BenchError(message)
    return answer.content, answer.headers


def _read(peer: Peer, body: bytes, headers: Mapping[str, str]) -> Any:
    try:
        return peer.form.read(body, headers)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        message = f"{peer.title}: not an answer of its form ({error}): {body[:_SHOWN_BODY]!r}"
        raise BenchError(message) from error


def _drive(
    peer: Peer,
    server: Server,
    route: str,
    jpegs: Sequence[bytes],
    plan: PeerPlan,
    round_number: int,
) -> PeerMeasurement:
    bodies = [peer.form.body(jpeg) for jpeg in jpegs]
    question = peer.form.question

    def run(loop: Callable[[HttpClient], Coroutine[Any, Any, Sent]], count: int) -> Any:
        async def work() -> Sent:
            client = HttpClient(server.url, route, bodies, question.content_type, question.headers)
            await client.open_connections(count)
            try:
                return await loop(client)
            finally:
                client.close()

        return run_timed(work())

    def closed(users: int, seconds: float) -> tuple[Sent, float]:
        found: tuple[Sent, float] = run(
            lambda client: closed_loop(client.send, users, seconds, check=server.check_alive),
            users,
        )
        return found

    def open_for(rate: float) -> Sent:
        total = plan.half_load_warm_up_seconds + plan.half_load_seconds
        whole: Sent
        whole, _ = run(
            lambda client: open_loop(
                client.send, rate, total, seed=plan.seed + round_number, check=server.check_alive
            ),
            plan.open_connections,
        )
        return whole.after(plan.half_load_warm_up_seconds)

    warm, _ = closed(plan.connections, plan.warm_up_seconds)
    cpu_before = server.cpu_seconds()
    full, cpu_share = closed(plan.connections, plan.seconds)
    cpu_seconds = server.cpu_seconds() - cpu_before
    within = full.answered_within(0, plan.seconds)
    answered = int(within.succeeded.sum())
    if not answered:
        message = f"{peer.title} answered no request under load ({full.succeeded.size} were sent)"
        raise BenchError(message)
    alone, _ = closed(1, plan.one_client_seconds)
    rate = answered / plan.seconds / 2
    if peer.role == "ceiling":
        rate = min(rate, _MOST_CEILING_RATE)
    half = open_for(rate)
    common = open_for(plan.common_rate_per_s) if rate > plan.common_rate_per_s / 2 else None
    sent = [warm, full, alone, half, *([common] if common else [])]
    failed = sum(int((~one.succeeded).sum()) for one in sent)
    load = {
        "connections": plan.connections,
        "seconds": plan.seconds,
        "requests": answered,
        "failed_requests": failed,
        "saturated_p50_ms": _milliseconds(within, 50),
        "saturated_p99_ms": _milliseconds(within, 99),
        "cpu_us_per_request": round(1e6 * cpu_seconds / int(full.succeeded.sum()), 1),
        "one_client_p50_ms": _milliseconds(alone, 50),
        "half_load_rate_per_s": round(rate, 1),
        "half_load_requests": int(half.succeeded.sum()),
        "half_load_p50_ms": _milliseconds(half, 50),
        "half_load_p99_ms": _milliseconds(half, 99),
        "common_rate_per_s": plan.common_rate_per_s if common else None,
        "common_rate_p50_ms": _milliseconds(common, 50) if common else None,
        "common_rate_p99_ms": _milliseconds(common, 99) if common else None,
        "generator_cpu_share": round(cpu_share, 3),
    }
    return _describe(peer, server, round_number, load)


def _milliseconds(sent: Sent, percent: float) -> float | None:
    times = sent.times_ms
    return round(percentile(times, percent), 3) if times.size else None


def _describe(
    peer: Peer, server: Server, round_number: int, load: Mapping[str, Any] = _NO_LOAD
) -> PeerMeasurement:
    return PeerMeasurement(
        name=peer.name,
        server=title_of(peer),
        role=peer.role,
        decoder=peer.decoder,
        sends=peer.form.question.title,
        round=round_number,
        worker_cores=1,
        ready_seconds=round(server.ready_seconds, 3),
        resident_bytes=server.resident_bytes(),
        **load,
    )
