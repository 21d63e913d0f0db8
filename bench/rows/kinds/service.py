"""Rows about the running service: under load, under faults, with other settings, beside others."""

from dataclasses import field
from functools import cached_property
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT, Measurement, provider_of
from bench.statistics.samples import median, percentile

GENERATOR_LIMIT: Final = 0.9
"""Above this share of its core the generator, not the server, may set the rate (Locust's own
warning has the same bound)."""

RESPONSE_TIME_STEP_US: Final = 10
"""Response times are counted in steps of this: exact to 1 % of a millisecond, and compact."""

DEFAULT_MAX_BATCH: Final = 32
"""Images in one run of the model, at most, in the service's own default."""

PeerRole = Literal["ours", "peer", "start only", "ceiling"]
"""``start only``: it answers no picture, only its start is timed. ``ceiling``: a server that does
nothing, so that its figures are the load generator's own."""


@dataclass(frozen=True, config=STRICT)
class LoadMeasurement(Measurement):
    """A load run over HTTP, the generator on the server's cores. Closed loop: each user sends its
    next request on the last answer. Open loop, with a rate: users send when they are due, as far
    as they are free."""

    kind: ClassVar[str] = "load"

    device: str
    """Where the server says the model runs: ``cpu`` or ``cuda``."""
    users: int
    seconds: float
    """Measured time, from the end of the warm-up to the last answer."""
    warm_up_seconds: float
    warm_up_requests: int
    """Requests sent before and not counted below."""
    status_counts: dict[str, int]
    """HTTP status (or ``"no answer"``) → requests, measured ones only."""
    response_time_counts: tuple[tuple[int, int], ...]
    """Successful requests: (response time in units of 10 µs, how often), ascending."""
    requests_per_second: tuple[int, ...]
    """Successful answers in each full second, in order."""
    generator_cpu_share: float
    """CPU time over wall time of the load generator: 1.0 is one core, and it uses one."""
    server_cpu_seconds: float | None
    """CPU time of the server's process tree, warm-up included; None for a server not started
    here."""
    server_requests: int
    """Requests that used that CPU time."""
    rate_per_s: float | None = None
    """Rate offered by all users together; None: a closed loop, flat out."""
    shape: str | None = None
    """Shape of the arrivals, with a rate: ``poisson`` or ``constant``."""

    @property
    def key(self) -> str:
        """One per device, loop and number of users."""
        if self.rate_per_s is None:
            return f"device={self.device} closed users={self.users}"
        return f"device={self.device} {self.shape} rate={self.rate_per_s:g} users={self.users}"

    @property
    def execution_provider(self) -> str:
        """Execution provider behind the device."""
        return provider_of(self.device)

    @property
    def sent(self) -> int:
        """Measured requests, whatever became of them."""
        return sum(self.status_counts.values())

    @property
    def answered(self) -> int:
        """Measured requests answered with a 200."""
        return self.status_counts.get("200", 0)

    @property
    def request_rate(self) -> float:
        """Successful answers per second."""
        return self.answered / self.seconds

    @cached_property
    def response_times_ms(self) -> NDArray[np.float64]:
        """Response time of every successful request in ms, ascending: float64 (N,)."""
        pairs = np.asarray(self.response_time_counts, np.int64)
        return np.repeat(pairs[:, 0] * RESPONSE_TIME_STEP_US / 1e3, pairs[:, 1])

    def percentile_ms(self, percent: float) -> float:
        """Percentile of the response times, in ms."""
        return percentile(self.response_times_ms, percent)

    @property
    def server_cpu_us(self) -> float | None:
        """CPU time of the server's process tree per request, in µs: the steadiest figure on a noisy
        machine. None for a server not started here."""
        if self.server_cpu_seconds is None or not self.server_requests:
            return None
        return self.server_cpu_seconds * 1e6 / self.server_requests

    @property
    def generator_was_limit(self) -> bool:
        """Whether the rate may be the generator's own and not the server's."""
        return self.generator_cpu_share > GENERATOR_LIMIT


@dataclass(frozen=True, config=STRICT)
class PeerMeasurement(Measurement):
    """One server in one of the interleaved rounds that compare it with others: the same model and
    the same pictures, one at a time, over HTTP. What was not measured is None."""

    kind: ClassVar[str] = "peer"

    name: str
    """Name in :data:`bench.peers.catalogue.CATALOGUE`."""
    server: str
    """Its title and version."""
    role: str
    """A :data:`PeerRole`."""
    decoder: str
    """Whose image decoding it used: ``its own``, ``ours`` or ``none``."""
    sends: str
    """What one request holds."""
    round: int
    """Round, from 1; ratios are of rows of the same round and run."""
    worker_cores: int
    ready_seconds: float
    """Time from its start, on that core, to its first right answer."""
    resident_bytes: int
    """Memory of the process tree, after the load; shared memory once."""
    connections: int
    """Connections of the closed loop; 0 for what is only started."""
    seconds: float
    """Length of the closed loop, the warm-up left out."""
    requests: int
    """Requests answered with a 200 in that time."""
    failed_requests: int
    """Requests without a 200, in all loops."""
    saturated_p50_ms: float | None
    saturated_p99_ms: float | None
    cpu_us_per_request: float | None
    """CPU time of the process tree in the closed loop."""
    one_client_p50_ms: float | None
    half_load_rate_per_s: float | None
    """Rate of the open loop with Poisson arrivals: half of what the closed loop reached."""
    half_load_requests: int
    half_load_p50_ms: float | None
    """Timed from when a request was due."""
    half_load_p99_ms: float | None
    common_rate_per_s: float | None
    """Rate of another open loop, the same for all; None for a server whose own rate is below it."""
    common_rate_p50_ms: float | None
    common_rate_p99_ms: float | None
    generator_cpu_share: float | None
    """CPU time over wall time of the load generator in the closed loop, on its own core."""

    @property
    def key(self) -> str:
        """One per server and round."""
        return f"peer={self.name} round={self.round}"

    @property
    def request_rate(self) -> float | None:
        """Successful answers per second of the closed loop; None where there was none."""
        return self.requests / self.seconds if self.seconds else None


@dataclass(frozen=True, config=STRICT)
class PeerFailureMeasurement(Measurement):
    """Why another server could not be compared; says nothing against the model."""

    kind: ClassVar[str] = "peer_failure"

    name: str
    server: str
    error: str
    """The exception's class."""
    message: str

    @property
    def key(self) -> str:
        """One per server."""
        return f"peer={self.name}"


@dataclass(frozen=True, config=STRICT)
class BulkMeasurement(Measurement):
    """Many images in one request, as pixels, against the same model in process on the same core:
    images per second in each interleaved round."""

    kind: ClassVar[str] = "bulk"

    device: str
    images: int
    """Images in one request."""
    connections: int
    seconds: float
    """Length of each way in each round."""
    in_process: tuple[float, ...]
    """The whole request's images in one run of the model."""
    in_process_chunks: tuple[float, ...]
    """The same images in runs of ``chunk_images``, as the service does it."""
    chunk_images: int
    classify_batch: tuple[float, ...]
    """``/classify/batch``, an ``.npy`` body."""
    v2_infer: tuple[float, ...]
    """``/v2/.../infer`` with the binary tensor extension."""

    @property
    def key(self) -> str:
        """One per device and request size."""
        return f"device={self.device} images={self.images}"

    @property
    def best_in_process(self) -> tuple[float, ...]:
        """Rates of the way that is faster in process, by the median."""
        return max((self.in_process, self.in_process_chunks), key=median)


@dataclass(frozen=True, config=STRICT)
class SettingsMeasurement(Measurement):
    """The service with one choice of workers, threads and batch size, in interleaved rounds: one
    value a round."""

    kind: ClassVar[str] = "settings"

    device: str
    cores: int
    """Cores that the service might use."""
    generator_shares: bool
    """Whether the load generator ran on the same cores."""
    workers: int
    threads: int
    """Threads of ONNX Runtime, in each worker."""
    max_batch: int
    """Images in one run of the model, at most."""
    connections: int
    """Connections of the closed loop, one image a request."""
    seconds: float
    """Length of the closed loop in each round."""
    requests_per_second: tuple[float, ...]
    p50_ms: tuple[float, ...]
    p99_ms: tuple[float, ...]
    one_client_p50_ms: tuple[float, ...]
    """p50 with one connection."""
    resident_bytes: tuple[int, ...]
    """Memory of the process tree, after the load; shared memory once."""

    @property
    def key(self) -> str:
        """One per choice."""
        return (
            f"device={self.device} cores={self.cores} workers={self.workers} "
            f"threads={self.threads} batch={self.max_batch}"
        )

    @property
    def request_rate(self) -> float:
        """Successful answers per second of the closed loop, the median over the rounds."""
        return median(self.requests_per_second)

    @property
    def is_default(self) -> bool:
        """Whether the service would choose the same by itself."""
        wanted = 1 if self.device == "cuda" else self.cores
        return (self.workers, self.threads, self.max_batch) == (wanted, 1, DEFAULT_MAX_BATCH)


@dataclass(frozen=True, config=STRICT)
class ChaosMeasurement(Measurement):
    """What the service did under one kind of fault or attack."""

    kind: ClassVar[str] = "chaos"

    trial: str
    """Name of the trial: ``kill``, ``fuzz``, ``slow_readers`` and so on."""
    workers: int
    seconds: float
    status_counts: dict[str, int]
    """HTTP status → requests; ``no answer`` where none came."""
    figures: dict[str, float]
    """What else was counted or timed; the unit is in the name."""
    memory_bytes: tuple[tuple[float, int], ...]
    """(seconds from the start, memory of all processes of the server)."""
    promise: str
    """What the service has to do."""
    holds: bool
    title: str = ""
    """Heading for a report; empty in rows written before 27 November 2026."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Kind of input and what came of it → inputs, where a trial counts them."""
    broken: tuple[str, ...] = ()
    """Parts of the promise that did not hold, each with its numbers."""

    @property
    def key(self) -> str:
        """One per trial and number of workers."""
        return f"trial={self.trial} workers={self.workers}"
