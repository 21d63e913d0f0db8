"""Row format: one measurement, with all the data needed to interpret it.

A kind of row is a subclass of :class:`Measurement` in a module of :mod:`bench.rows.kinds`. It holds
raw samples and counts as fields; every percentile, rate and share is a property computed from them,
so that a better formula needs no new measurement and all readers compute the same figures.
"""

from typing import Annotated, ClassVar, Final, Generic

from pydantic import AfterValidator, ConfigDict, ValidationInfo
from pydantic.dataclasses import dataclass
from typing_extensions import TypeVar

from cifar10.labels import DATASET_NAME
from cifar10.openvino_session import OPENVINO_PROVIDER
from cifar10.predictor import CPU_PROVIDER, CUDA_PROVIDER

SCHEMA_VERSION: Final = 1

STRICT: Final = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")
"""How rows are validated: exact types, no unknown fields."""

_PROVIDER_OF_DEVICE: Final = {
    "cpu": CPU_PROVIDER,
    "cuda": CUDA_PROVIDER,
    "openvino": OPENVINO_PROVIDER,
}


@dataclass(frozen=True, config=STRICT)
class Measurement:
    """Base class of every kind of row."""

    kind: ClassVar[str]
    """Name of the kind; the file ``<kind>.jsonl`` holds its rows."""

    @property
    def key(self) -> str:
        """Key of a measurement within its kind and model; a newer row replaces one with the same
        key."""
        return ""

    @property
    def execution_provider(self) -> str | None:
        """Execution provider of the figures; None if they do not depend on one."""
        return getattr(self, "provider", None)


def provider_of(device: str) -> str:
    """Return the execution provider of a row's device: ``cpu``, ``cuda``, or ``openvino`` for that
    engine on the CPU."""
    return _PROVIDER_OF_DEVICE.get(device, device)


def device_of(provider: str) -> str:
    """Return the device of a row for an execution provider."""
    found = {one: device for device, one in _PROVIDER_OF_DEVICE.items()}
    return found.get(provider, provider)


@dataclass(frozen=True, config=STRICT)
class DatasetReference:
    """Data set and images of a row."""

    variant: str
    fingerprint: str
    name: str = DATASET_NAME
    """Name of the data set, which its copies and variants share. Accuracies of data sets of
    different names are never compared."""


def _same_hardware(machine: str, info: ValidationInfo) -> str:
    """Return the identity of the machine that an older row refers to by another hash."""
    identities: dict[str, str] = info.context or {}
    return identities.get(machine, machine)


M = TypeVar("M", bound=Measurement, default=Measurement, covariant=True)


@dataclass(frozen=True, config=STRICT)
class Row(Generic[M]):
    """One line of a results file."""

    schema_version: int
    kind: str
    model: str
    digest: str
    """SHA-256 of the measured ``model.onnx``; empty if it could not be read."""
    key: str
    run_id: str
    """Id shared by the rows of one command."""
    created: str
    """Creation time: UTC, ISO 8601."""
    machine: Annotated[str, AfterValidator(_same_hardware)]
    """Identity of the machine: :attr:`bench.rows.machine.Machine.identity`."""
    versions: dict[str, str]
    dataset: DatasetReference | None
    quick: bool
    """Whether made with ``--quick``: shown only if there is no full row."""
    measurement: M

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Key over all models and machines; rows with the same identity replace each other."""
        return self.kind, self.model, self.digest, self.key
