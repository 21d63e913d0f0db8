"""Rows about what a model costs whatever the traffic: size, memory, energy, training, precision."""

from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT, Measurement
from bench.statistics.samples import median
from cifar10.card import ModelCard, Parity, RefusedVariant, VariantRecord


@dataclass(frozen=True, config=STRICT)
class CostMeasurement(Measurement):
    """Cost of a model on any machine, from its card, checked against its file."""

    kind: ClassVar[str] = "cost"

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
    seed: int | None = None
    """Seed of the training; None in rows older than this field."""
    second_looks: float | None = None
    """Share of validation images that an early exit does not spare the second look, 0–1; None
    where every image takes the same, and in rows older than this field."""

    def accuracy_per_million_parameters(self, accuracy: float) -> float:
        """The reference study's measure of efficiency: percentage points per million parameters.

        It favours the smallest model without bound (a constant answer with ten parameters scores a
        million), so it is shown, and nothing is ranked by it.

        Args:
            accuracy: 0–1.
        """
        return accuracy * 100 / (self.parameters_total / 1e6)


@dataclass(frozen=True, config=STRICT)
class VariantMeasurement(Measurement):
    """What a variant was made from and what that changed, from its card or its refusal."""

    kind: ClassVar[str] = "variant"

    precision: str
    recipe: str
    size_bytes: int
    record: VariantRecord
    parity: Parity
    """Parity with its source, on validation images."""
    refused: str | None
    """Why it is not to be used, to be read after "it"; None for one that is."""


def variant_of(card: ModelCard) -> VariantMeasurement | None:
    """Row of a model that is a variant; None where it is none."""
    return None if card.variant is None else _variant(card, card.variant, None)


def refused_variant(refused: RefusedVariant) -> VariantMeasurement | None:
    """Row of a variant that was refused; None where it names no source."""
    card = refused.card
    return None if card.variant is None else _variant(card, card.variant, refused.reason)


def _variant(card: ModelCard, record: VariantRecord, refused: str | None) -> VariantMeasurement:
    return VariantMeasurement(
        card.precision, card.recipe, card.size_bytes, record, card.parity, refused
    )


@dataclass(frozen=True, config=STRICT)
class StartSample:
    """One fresh process that loads a model and answers."""

    import_ns: int
    """Time from its start to having the libraries."""
    session_ns: int
    """Time to make the session: reading, optimising."""
    first_answer_ns: int
    ready_ns: int
    """Time from its start to the first answer, seen from outside."""
    resident_bytes_libraries: int
    """Resident memory with the libraries and no model."""
    resident_bytes_ready: int
    """Resident memory after the first answer."""
    peak_resident_bytes: int
    """Peak resident memory, after answering ``peak_batch_size`` images at once too."""


@dataclass(frozen=True, config=STRICT)
class ResourceMeasurement(Measurement):
    """What running a model takes besides time."""

    kind: ClassVar[str] = "resources"

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
    """Energy of the whole package or GPU while ``energy_images`` were classified, idle power
    included."""
    energy_images: int
    energy_seconds: float

    @property
    def key(self) -> str:
        """One per execution provider and thread count."""
        return f"provider={self.provider} threads={self.threads}"

    @property
    def images_per_joule(self) -> float | None:
        """Images classified per joule; None where no meter told, or it did not move."""
        return self.energy_images / self.energy_joules if self.energy_joules else None

    @property
    def peak_bytes(self) -> float | None:
        """Median peak resident memory; None without starts."""
        return self._median([one.peak_resident_bytes for one in self.starts])

    @property
    def model_bytes(self) -> float | None:
        """Median resident memory that the model adds to the libraries; None without starts."""
        return self._median(
            [one.resident_bytes_ready - one.resident_bytes_libraries for one in self.starts]
        )

    @property
    def loading_ms(self) -> float | None:
        """Median time to make the session; None without starts."""
        return self._median([one.session_ns / 1e6 for one in self.starts])

    @property
    def ready_seconds(self) -> float | None:
        """Median time from a process's start to its first answer; None without starts."""
        return self._median([one.ready_ns / 1e9 for one in self.starts])

    def _median(self, values: list[float] | list[int]) -> float | None:
        return median(values) if values else None


@dataclass(frozen=True, config=STRICT)
class EpochFigures:
    """Figures of one epoch: shares 0–1 and cross-entropies in nats."""

    accuracy: float
    validation_accuracy: float
    loss: float
    validation_loss: float
    phase: str


@dataclass(frozen=True, config=STRICT)
class TrainingMeasurement(Measurement):
    """How a model was trained: from its card, and epoch by epoch where ``history.csv`` is there."""

    kind: ClassVar[str] = "training"

    seconds_per_epoch: tuple[float, ...]
    best_epoch: int
    """1-based; its weights were kept."""
    train_accuracy: float | None
    """Accuracy of the kept weights, from the card; likewise the next two."""
    validation_accuracy: float | None
    test_accuracy: float | None
    epochs: tuple[EpochFigures, ...]
    """Empty without a ``history.csv``."""
    recipe_fields: dict[str, Any] | None = None
    """Recipe fields on the card: what was trained, and how. None in rows older than this field."""

    @property
    def validation_curve(self) -> tuple[float, ...]:
        """Validation accuracy after each epoch, 0–1."""
        return tuple(epoch.validation_accuracy for epoch in self.epochs)
