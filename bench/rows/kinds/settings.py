"""What ``cifar10 bench settings`` measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SettingsMeasurement:
    """The service with one choice of workers, threads and batch size, in interleaved rounds: one
    value a round."""

    device: str
    cores: int
    """That the service might use."""
    generator_shares: bool
    """Whether the load generator ran on the same cores."""
    workers: int
    threads: int
    """Of ONNX Runtime, in each worker."""
    max_batch: int
    """Images in one run of the model, at most."""
    connections: int
    """Of the closed loop, one image a request."""
    seconds: float
    """Of it, in each round."""
    requests_per_second: tuple[float, ...]
    p50_ms: tuple[float, ...]
    p99_ms: tuple[float, ...]
    one_client_p50_ms: tuple[float, ...]
    """With one connection."""
    resident_bytes: tuple[int, ...]
    """Of the process tree, after the load; shared memory once."""
