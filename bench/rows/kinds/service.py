"""Rows about the running service: load, faults, settings and other servers."""

from dataclasses import field
from functools import cached_property
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT, Measurement, provider_of
from bench.statistics.samples import median, percentile

GENERATOR_LIMIT: Final = 0.9
"""Share of its core above which the generator, not the server, may limit the rate.

Locust's own warning has the same bound.
"""

RESPONSE_TIME_STEP_US: Final = 10
"""Step of counted response times: precise to 1 % of a millisecond, and compact."""

DEFAULT_MAX_BATCH: Final = 32
"""Default maximum of images in one run of the model."""

PeerRole = Literal["ours", "peer", "start only", "ceiling"]
"""Role of a server in the comparison.

``start only``: only its start-up is timed. ``ceiling``: a no-op server, whose figures are the load
generator's own.
"""


@dataclass(frozen=True, config=STRICT)
class LoadMeasurement(Measurement):
    """Load run over HTTP with the generator on the server's cores.

    In a closed loop each user sends its next request after the last response. In an open loop, with
    a rate, users send when due, if they are free.
    """

    kind: ClassVar[str] = "load"

    device: str
    """Device that the server reports for the model: ``cpu`` or ``cuda``."""
    users: int
    seconds: float
    """Measured time, from the end of the warm-up to the last response."""
    warm_up_seconds: float
    warm_up_requests: int
    """Number of requests before the measurement, not counted below."""
    status_counts: dict[str, int]
    """Number of measured requests by HTTP status or ``"no answer"``."""
    response_time_counts: tuple[tuple[int, int], ...]
    """Successful requests: (response time in units of 10 µs, count), ascending."""
    requests_per_second: tuple[int, ...]
    """Successful responses in each full second, in order."""
    generator_cpu_share: float
    """CPU time over wall time of the load generator; 1.0 is one core, its maximum."""
    server_cpu_seconds: float | None
    """CPU time of the server's process tree, including the warm-up; None if not started here."""
    server_requests: int
    """Number of requests that used this CPU time."""
    rate_per_s: float | None = None
    """Offered rate of all users together; None: a closed loop at full speed."""
    shape: str | None = None
    """Shape of the arrivals, if there is a rate: ``poisson`` or ``constant``."""

    @property
    def key(self) -> str:
        """Key: device, loop and number of users."""
        if self.rate_per_s is None:
            return f"device={self.device} closed users={self.users}"
        return f"device={self.device} {self.shape} rate={self.rate_per_s:g} users={self.users}"

    @property
    def execution_provider(self) -> str:
        """Execution provider behind the device."""
        return provider_of(self.device)

    @property
    def sent(self) -> int:
        """Number of measured requests, with any outcome."""
        return sum(self.status_counts.values())

    @property
    def answered(self) -> int:
        """Number of measured requests answered with a 200."""
        return self.status_counts.get("200", 0)

    @property
    def request_rate(self) -> float:
        """Successful responses per second."""
        return self.answered / self.seconds

    @cached_property
    def response_times_ms(self) -> NDArray[np.float64]:
        """Response time of every successful request in ms, ascending: float64 (N,)."""
        pairs = np.asarray(self.response_time_counts, np.int64)
        return np.repeat(pairs[:, 0] * RESPONSE_TIME_STEP_US / 1e3, pairs[:, 1])

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the response times, in ms."""
        return percentile(self.response_times_ms, percent)

    @property
    def server_cpu_us(self) -> float | None:
        """CPU time of the server's process tree per request, in µs.

        It is the most stable figure on a noisy machine. None for a server not started here.
        """
        if self.server_cpu_seconds is None or not self.server_requests:
            return None
        return self.server_cpu_seconds * 1e6 / self.server_requests

    @property
    def generator_was_limit(self) -> bool:
        """Whether the load generator may have limited the rate."""
        return self.generator_cpu_share > GENERATOR_LIMIT


@dataclass(frozen=True, config=STRICT)
class PeerMeasurement(Measurement):
    """One server in one interleaved round of the comparison.

    All servers get the same model and pictures, one at a time, over HTTP. Figures not measured are
    None.
    """

    kind: ClassVar[str] = "peer"

    name: str
    """Name in :data:`bench.peers.catalogue.CATALOGUE`."""
    server: str
    """Title and version of the server."""
    role: str
    """Role: one of :data:`PeerRole`."""
    decoder: str
    """Image decoder used: ``its own``, ``ours`` or ``none``."""
    sends: str
    """Content of one request."""
    round: int
    """Round, from 1; ratios compare rows of the same round and run."""
    worker_cores: int
    ready_seconds: float
    """Time from start-up, on its core, to the first correct response."""
    resident_bytes: int
    """Memory of the process tree after the load; shared memory counts once."""
    connections: int
    """Number of connections of the closed loop; 0 for a server that is only started."""
    seconds: float
    """Duration of the closed loop without the warm-up."""
    requests: int
    """Number of requests answered with a 200 in that time."""
    failed_requests: int
    """Number of requests without a 200, in all loops."""
    saturated_p50_ms: float | None
    saturated_p99_ms: float | None
    cpu_us_per_request: float | None
    """CPU time of the process tree per request in the closed loop."""
    one_client_p50_ms: float | None
    half_load_rate_per_s: float | None
    """Rate of the open loop with Poisson arrivals: half of the closed loop's rate."""
    half_load_requests: int
    half_load_p50_ms: float | None
    """Median time from when a request was due."""
    half_load_p99_ms: float | None
    common_rate_per_s: float | None
    """Rate of a second open loop, the same for all; None for a server whose own rate is lower."""
    common_rate_p50_ms: float | None
    common_rate_p99_ms: float | None
    generator_cpu_share: float | None
    """CPU time over wall time of the load generator in the closed loop, on its own core."""

    @property
    def key(self) -> str:
        """Key: server and round."""
        return f"peer={self.name} round={self.round}"

    @property
    def request_rate(self) -> float | None:
        """Successful responses per second of the closed loop; None without a closed loop."""
        return self.requests / self.seconds if self.seconds else None


@dataclass(frozen=True, config=STRICT)
class PeerFailureMeasurement(Measurement):
    """Reason why another server could not be compared; no failure of the model."""

    kind: ClassVar[str] = "peer_failure"

    name: str
    server: str
    error: str
    """Class name of the exception."""
    message: str

    @property
    def key(self) -> str:
        """Key: server."""
        return f"peer={self.name}"


@dataclass(frozen=True, config=STRICT)
class BulkMeasurement(Measurement):
    """Many images in one request, compared with the same model in process on the same core.

    Values are images per second in each interleaved round. The images are sent as pixels.
    """

    kind: ClassVar[str] = "bulk"

    device: str
    images: int
    """Number of images in one request."""
    connections: int
    seconds: float
    """Duration of each measurement in each round."""
    in_process: tuple[float, ...]
    """Rates with the whole request's images in one run of the model."""
    in_process_chunks: tuple[float, ...]
    """Rates with the same images in runs of ``chunk_images``, as in the service."""
    chunk_images: int
    classify_batch: tuple[float, ...]
    """Rates of ``/classify/batch`` with an ``.npy`` body."""
    v2_infer: tuple[float, ...]
    """Rates of ``/v2/.../infer`` with the binary tensor extension."""

    @property
    def key(self) -> str:
        """Device and request size, which identify the row."""
        return f"device={self.device} images={self.images}"

    @property
    def best_in_process(self) -> tuple[float, ...]:
        """Rates of the in-process way with the higher median."""
        return max((self.in_process, self.in_process_chunks), key=median)


@dataclass(frozen=True, config=STRICT)
class SettingsMeasurement(Measurement):
    """Service with one choice of workers, threads and batch size.

    Tuples have one value for each interleaved round.
    """

    kind: ClassVar[str] = "settings"

    device: str
    cores: int
    """Number of cores available to the service."""
    generator_shares: bool
    """Whether the load generator ran on the same cores."""
    workers: int
    threads: int
    """Number of ONNX Runtime threads in each worker."""
    max_batch: int
    """Maximum number of images in one run of the model."""
    connections: int
    """Number of connections of the closed loop, one image a request."""
    seconds: float
    """Duration of the closed loop in each round."""
    requests_per_second: tuple[float, ...]
    p50_ms: tuple[float, ...]
    p99_ms: tuple[float, ...]
    one_client_p50_ms: tuple[float, ...]
    """Median times with one connection."""
    resident_bytes: tuple[int, ...]
    """Memory of the process tree after the load; shared memory counts once."""

    @property
    def key(self) -> str:
        """Key: choice of settings."""
        return (
            f"device={self.device} cores={self.cores} workers={self.workers} "
            f"threads={self.threads} batch={self.max_batch}"
        )

    @property
    def request_rate(self) -> float:
        """Median over the rounds of the closed loop's successful responses per second."""
        return median(self.requests_per_second)

    @property
    def is_default(self) -> bool:
        """Whether the service would choose the same settings by default."""
        wanted = 1 if self.device == "cuda" else self.cores
        return (self.workers, self.threads, self.max_batch) == (wanted, 1, DEFAULT_MAX_BATCH)


@dataclass(frozen=True, config=STRICT)
class ChaosMeasurement(Measurement):
    """Behaviour of the service under one kind of fault or attack."""

    kind: ClassVar[str] = "chaos"

    trial: str
    """Name of the trial: ``kill``, ``fuzz``, ``slow_readers`` and so on."""
    workers: int
    seconds: float
    status_counts: dict[str, int]
    """Number of requests by HTTP status; ``no answer`` if there was none."""
    figures: dict[str, float]
    """Other counts and times; the unit is in the name."""
    memory_bytes: tuple[tuple[float, int], ...]
    """(seconds from the start, memory of all processes of the server)."""
    promise: str
    """Promise of the service."""
    holds: bool
    title: str = ""
    """Heading for the report; empty in rows written before 27 November 2026."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Number of inputs by kind and outcome, if the trial counts them."""
    broken: tuple[str, ...] = ()
    """Parts of the promise that did not hold, each with its numbers."""

    @property
    def key(self) -> str:
        """Key: trial and number of workers."""
        return f"trial={self.trial} workers={self.workers}"
