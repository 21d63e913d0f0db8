"""What is measured: one frozen dataclass per kind of row.

They hold raw samples and counts. Percentiles, rates, shares and everything else that can be
computed is computed from them on reading, so that a better formula needs no new measurement.
"""

from dataclasses import dataclass
from typing import Any, Final

from bench.rows.kinds.chaos import ChaosMeasurement
from bench.rows.kinds.peer import BulkMeasurement, PeerFailureMeasurement, PeerMeasurement
from bench.rows.kinds.plan import PlanMeasurement
from bench.rows.kinds.scenario import ScenarioMeasurement
from bench.rows.kinds.sending import SendingMeasurement
from bench.rows.kinds.sensitivity import SensitivityMeasurement
from bench.rows.kinds.settings import SettingsMeasurement
from bench.rows.kinds.variant import VariantMeasurement
from bench.statistics.calibration import Reliability
from cifar10.accuracy import Accuracy


@dataclass(frozen=True)
class AccuracyMeasurement:
    """Top-1 on the test images through ONNX Runtime, in process."""

    provider: str
    top1: Accuracy
    confusion: tuple[tuple[int, ...], ...]
    """10 × 10 counts: row is the true class, column the predicted one."""
    card_accuracy: float | None
    """Test accuracy the card claims (0–1); None without one, or when it is of other images."""
    card_train_accuracy: float | None
    overfitting_gap: float | None
    """Train minus test accuracy on the card, as a fraction."""
    predictions: str
    """Base64 of the predicted class ids, uint8 (N,), in the dataset's test order; empty in rows
    older than this field, as is ``hits``."""
    hits: str
    """Base64 of one bit per image, in the same order: whether it was classified rightly."""
    reliability: Reliability | None
    """None in rows older than this field."""


@dataclass(frozen=True)
class CostMeasurement:
    """What a model costs whatever the machine, from its card, checked against its file."""

    recipe: str
    precision: str
    parameters_total: int
    parameters_trainable: int
    macs: int
    """Multiply-accumulates for one image; with an early exit, for one that does not take it."""
    size_bytes: int
    random_weights: bool
    """True: only its cost may be shown."""
    training_epochs: int
    training_seconds: float
    training_hardware: str
    seed: int | None
    """Of the training; None in rows older than this field."""
    second_looks: float | None
    """The share of validation images that an early exit does not spare the second look, 0–1; None
    where every image takes the same, and in rows older than this field."""


@dataclass(frozen=True)
class LatencyMeasurement:
    """Time of single calls in process, one batch size."""

    provider: str
    threads: int
    batch_size: int
    warm_up_calls: int
    """Calls made and thrown away before the first sample, in all rounds together."""
    rounds: int
    """In how many interleaved rounds the samples were taken."""
    samples_ns: tuple[int, ...]
    """Duration of each call, rounded to 100 ns."""
    batches: int | None
    """How many different batches of images the calls were made with; None in rows older than this
    field, whose calls were all made with the same."""


@dataclass(frozen=True)
class ThroughputMeasurement:
    """Images per second in process, one batch size: blocks of calls, back to back."""

    provider: str
    threads: int
    batch_size: int
    block_images: tuple[int, ...]
    block_ns: tuple[int, ...]
    """Wall time of each block, with all that lies between its calls."""


@dataclass(frozen=True)
class LoadMeasurement:
    """A load run over HTTP. Closed loop: each user sends its next request on the last answer. Open
    loop, with a rate: users send when they are due, as far as they are free."""

    device: str
    """Where the server says the model runs: ``cpu`` or ``cuda``."""
    users: int
    seconds: float
    """Measured time, from the end of the warm-up to the last answer."""
    warm_up_seconds: float
    warm_up_requests: int
    """Sent before and not counted below."""
    status_counts: dict[str, int]
    """HTTP status (or ``"no answer"``) → requests, measured ones only."""
    response_time_counts: tuple[tuple[int, int], ...]
    """Of successful requests: (response time in units of 10 µs, how often), ascending."""
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
    """Offered by all users together; None: a closed loop, flat out."""
    shape: str | None = None
    """Of the arrivals, with a rate: ``poisson`` or ``constant``."""


@dataclass(frozen=True)
class VerifyMeasurement:
    """All test images through the running server, against ONNX Runtime in process."""

    device: str
    images: int
    answered: int
    """Images that got a 200."""
    same_top1: int
    server_correct: int
    in_process_correct: int
    card_correct: int | None
    """As the card has it; None without one, or when it is of other images."""
    differing: tuple[int, ...]
    """Indices of the first images whose answers differ, at most 20."""


@dataclass(frozen=True)
class RobustnessMeasurement:
    """Top-1 on copies of test images damaged in one way, at five severities."""

    provider: str
    corruption: str
    parameter: str
    """What the severity changes, with its unit."""
    strengths: tuple[float, ...]
    images: int
    seed: int
    """Of the choice of images and of what is random in the damage."""
    clean_correct: int
    """Of the same images, undamaged."""
    correct: tuple[int, ...]
    """At severities 1–5."""


@dataclass(frozen=True)
class StartSample:
    """One fresh process that loads a model and answers."""

    import_ns: int
    """From its start to having the libraries."""
    session_ns: int
    """Making the session: reading, optimising."""
    first_answer_ns: int
    ready_ns: int
    """From its start to the first answer, seen from outside."""
    resident_bytes_libraries: int
    """Resident memory with the libraries and no model."""
    resident_bytes_ready: int
    """After the first answer."""
    peak_resident_bytes: int
    """The most it ever had, after answering ``peak_batch_size`` images at once too."""


@dataclass(frozen=True)
class ResourceMeasurement:
    """What running a model takes besides time."""

    provider: str
    threads: int
    starts: tuple[StartSample, ...]
    peak_batch_size: int
    activation_bytes_largest: int | None
    """Inputs plus outputs of the node that has most of them, one image; weights left out."""
    activation_bytes_total: int | None
    """The outputs of all nodes, one image. None: the runtime's profile does not tell."""
    energy_source: str | None
    """``RAPL`` (processor packages) or ``NVML`` (the GPU); None where the machine tells nothing."""
    energy_joules: float | None
    """Of the whole package or GPU while ``energy_images`` were classified, idle power included."""
    energy_images: int
    energy_seconds: float


@dataclass(frozen=True)
class EpochFigures:
    """One epoch, shares 0–1 and cross-entropies in nats."""

    accuracy: float
    validation_accuracy: float
    loss: float
    validation_loss: float
    phase: str


@dataclass(frozen=True)
class TrainingMeasurement:
    """How a model was trained: from its card, and epoch by epoch where ``history.csv`` is there."""

    seconds_per_epoch: tuple[float, ...]
    best_epoch: int
    """1-based; its weights were kept."""
    train_accuracy: float | None
    """Of the kept weights, from the card; likewise the next two."""
    validation_accuracy: float | None
    test_accuracy: float | None
    epochs: tuple[EpochFigures, ...]
    """Empty without a ``history.csv``."""
    recipe_fields: dict[str, Any] | None = None
    """Of the card: what was trained, and how. None in rows older than this field."""


@dataclass(frozen=True)
class FailureMeasurement:
    """A measurement that could not be made: a row that says why, not a missing row."""

    stage: str
    """The kind that failed, or ``open``: the model could not even be loaded."""
    error: str
    """The exception's class."""
    message: str


Measurement = (
    AccuracyMeasurement
    | CostMeasurement
    | VariantMeasurement
    | LatencyMeasurement
    | ThroughputMeasurement
    | LoadMeasurement
    | VerifyMeasurement
    | ScenarioMeasurement
    | SensitivityMeasurement
    | RobustnessMeasurement
    | SendingMeasurement
    | ResourceMeasurement
    | TrainingMeasurement
    | PeerMeasurement
    | ChaosMeasurement
    | PeerFailureMeasurement
    | BulkMeasurement
    | SettingsMeasurement
    | PlanMeasurement
    | FailureMeasurement
)

KINDS: Final[dict[str, type[Measurement]]] = {
    "accuracy": AccuracyMeasurement,
    "cost": CostMeasurement,
    "variant": VariantMeasurement,
    "latency": LatencyMeasurement,
    "throughput": ThroughputMeasurement,
    "load": LoadMeasurement,
    "verify": VerifyMeasurement,
    "scenario": ScenarioMeasurement,
    "sensitivity": SensitivityMeasurement,
    "robustness": RobustnessMeasurement,
    "sending": SendingMeasurement,
    "resources": ResourceMeasurement,
    "training": TrainingMeasurement,
    "peer": PeerMeasurement,
    "chaos": ChaosMeasurement,
    "peer_failure": PeerFailureMeasurement,
    "bulk": BulkMeasurement,
    "settings": SettingsMeasurement,
    "plan": PlanMeasurement,
    "failure": FailureMeasurement,
}
"""Kind of row → what such a row holds."""


ADDED_LATER: Final[dict[str, dict[str, Any]]] = {
    "latency": {"batches": None},
    "load": {"rate_per_s": None, "shape": None},
    "accuracy": {"predictions": "", "hits": "", "reliability": None},
    "cost": {"seed": None, "second_looks": None},
    "training": {"recipe_fields": None},
    "chaos": {"title": "", "outcomes": {}, "broken": []},
}
"""Kind → the fields that its oldest rows lack, and what stands for them: not known."""


def kind_of(measurement: Measurement) -> str:
    """The name that rows of this measurement go under."""
    return next(kind for kind, holds in KINDS.items() if type(measurement) is holds)


def key_of(measurement: Measurement) -> str:
    """What tells apart two measurements of one kind on one model: a newer row replaces an older
    one with the same key."""
    match measurement:
        case LatencyMeasurement() | ThroughputMeasurement():
            return (
                f"provider={measurement.provider} threads={measurement.threads} "
                f"batch={measurement.batch_size}"
            )
        case AccuracyMeasurement():
            return f"provider={measurement.provider}"
        case LoadMeasurement(rate_per_s=None):
            return f"device={measurement.device} closed users={measurement.users}"
        case LoadMeasurement():
            offered = f"{measurement.shape} rate={measurement.rate_per_s:g}"
            return f"device={measurement.device} {offered} users={measurement.users}"
        case VerifyMeasurement():
            return f"device={measurement.device}"
        case ScenarioMeasurement() | SensitivityMeasurement():
            return measurement.key
        case RobustnessMeasurement():
            return f"provider={measurement.provider} corruption={measurement.corruption}"
        case SendingMeasurement():
            return f"provider={measurement.provider} way={measurement.way}"
        case ResourceMeasurement():
            return f"provider={measurement.provider} threads={measurement.threads}"
        case ChaosMeasurement():
            return f"trial={measurement.trial} workers={measurement.workers}"
        case PeerMeasurement():
            return f"peer={measurement.name} round={measurement.round}"
        case PeerFailureMeasurement():
            return f"peer={measurement.name}"
        case BulkMeasurement():
            return f"device={measurement.device} images={measurement.images}"
        case SettingsMeasurement():
            return (
                f"device={measurement.device} cores={measurement.cores} "
                f"workers={measurement.workers} threads={measurement.threads} "
                f"batch={measurement.max_batch}"
            )
        case FailureMeasurement():
            return measurement.stage
        case CostMeasurement() | TrainingMeasurement() | PlanMeasurement() | VariantMeasurement():
            return ""
