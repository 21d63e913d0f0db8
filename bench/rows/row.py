"""What a row is: one measurement, and everything needed to judge it.

A kind of row is a subclass of :class:`Measurement` in a module of :mod:`bench.rows.kinds`. It holds
raw samples and counts as fields; every percentile, rate and share is a property computed from them,
so that a better formula needs no new measurement and no two readers compute differently.
"""

from typing import Annotated, ClassVar, Final, Generic

from pydantic import AfterValidator, ConfigDict, ValidationInfo
from pydantic.dataclasses import dataclass
from typing_extensions import TypeVar

from cifar10.predictor import CPU_PROVIDER, CUDA_PROVIDER

SCHEMA_VERSION: Final = 1

STRICT: Final = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")
"""How rows are validated: exact types, no unknown fields."""

_PROVIDER_OF_DEVICE: Final = {"cpu": CPU_PROVIDER, "cuda": CUDA_PROVIDER}


@dataclass(frozen=True, config=STRICT)
class Measurement:
    """Base class of every kind of row."""

    kind: ClassVar[str]
    """Name of the kind: the file ``<kind>.jsonl`` holds its rows."""

    @property
    def key(self) -> str:
        """Tells apart measurements of one kind on one model: a newer row replaces an older one
        with the same key."""
        return ""

    @property
    def execution_provider(self) -> str | None:
        """Execution provider that the figures belong to; None: they belong to the model as such."""
        return getattr(self, "provider", None)


def provider_of(device: str) -> str:
    """Execution provider behind a device that a server names (``cpu``, ``cuda``)."""
    return _PROVIDER_OF_DEVICE.get(device, device)


@dataclass(frozen=True, config=STRICT)
class DatasetReference:
    """Which images a row is about."""

    variant: str
    fingerprint: str


def _same_hardware(machine: str, info: ValidationInfo) -> str:
    """Identity of the machine that an older row refers to by another hash."""
    identities: dict[str, str] = info.context or {}
    return identities.get(machine, machine)


M = TypeVar("M", bound=Measurement, default=Measurement, covariant=True)


@dataclass(frozen=True, config=STRICT)
class Row(Generic[M]):
    """One line of a file of results."""

    schema_version: int
    kind: str
    model: str
    digest: str
    """SHA-256 of the ``model.onnx`` that ran; empty when it could not be read."""
    key: str
    run_id: str
    """Shared by the rows of one command."""
    created: str
    """UTC, ISO 8601."""
    machine: Annotated[str, AfterValidator(_same_hardware)]
    """:attr:`bench.rows.machine.Machine.identity`."""
    versions: dict[str, str]
    dataset: DatasetReference | None
    quick: bool
    """Made with ``--quick``: shown only where there is no full one."""
    measurement: M

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Rows with the same identity replace each other."""
        return self.kind, self.model, self.digest, self.key
