"""What the comparison with other servers measures."""

from dataclasses import dataclass
from typing import Literal

PeerRole = Literal["ours", "peer", "start only", "ceiling"]
"""``start only``: it answers no picture, only its start is timed. ``ceiling``: a server that does
nothing, so that its figures are the load generator's own."""


@dataclass(frozen=True)
class PeerMeasurement:
    """One server in one of the interleaved rounds that compare it with others: the same model and
    the same pictures, one at a time, over HTTP. What was not measured is None."""

    name: str
    """In :data:`bench.peers.catalogue.CATALOGUE`."""
    server: str
    """Its title and version."""
    role: str
    """A :data:`PeerRole`."""
    decoder: str
    """Whose image decoding it used: ``its own``, ``ours`` or ``none``."""
    sends: str
    """What one request holds."""
    round: int
    """From 1; the ratios are of rows of the same round and run."""
    worker_cores: int
    ready_seconds: float
    """From its start, on that core, to its first right answer."""
    resident_bytes: int
    """Of the process tree, after the load; shared memory once."""
    connections: int
    """Of the closed loop; 0 for what is only started."""
    seconds: float
    """Of the closed loop, the warm-up left out."""
    requests: int
    """Answered with a 200 in that time."""
    failed_requests: int
    """Of all loops."""
    saturated_p50_ms: float | None
    saturated_p99_ms: float | None
    cpu_us_per_request: float | None
    """CPU time of the process tree in the closed loop."""
    one_client_p50_ms: float | None
    half_load_rate_per_s: float | None
    """Of the open loop with Poisson arrivals: half of what the closed loop reached."""
    half_load_requests: int
    half_load_p50_ms: float | None
    """From when a request was due."""
    half_load_p99_ms: float | None
    common_rate_per_s: float | None
    """Of another open loop, whose rate is the same for all; None for a server whose own rate
    is below it."""
    common_rate_p50_ms: float | None
    common_rate_p99_ms: float | None
    generator_cpu_share: float | None
    """CPU time over wall time of the load generator in the closed loop, on its own core."""


@dataclass(frozen=True)
class PeerFailureMeasurement:
    """Why another server could not be compared; says nothing against the model."""

    name: str
    server: str
    error: str
    """The exception's class."""
    message: str


@dataclass(frozen=True)
class BulkMeasurement:
    """Many images in one request, as pixels, against the same model in process on the same core:
    images per second in each interleaved round."""

    device: str
    images: int
    """In one request."""
    connections: int
    seconds: float
    """Of each way in each round."""
    in_process: tuple[float, ...]
    """The whole request's images in one run of the model."""
    in_process_chunks: tuple[float, ...]
    """In runs of ``chunk_images``, as the service does it."""
    chunk_images: int
    classify_batch: tuple[float, ...]
    """``/classify/batch``, an ``.npy`` body."""
    v2_infer: tuple[float, ...]
    """``/v2/.../infer`` with the binary tensor extension."""
