"""Rows about costs independent of traffic: size, memory, energy, training and precision."""

from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from bench.rows.row import STRICT, Measurement
from bench.statistics.samples import median
from cifar10.card import ModelCard, Parity, RefusedVariant, VariantRecord


@dataclass(frozen=True, config=STRICT)
class CostMeasurement(Measurement):
    """Machine-independent cost of a model, from its card, checked against its file."""

    kind: ClassVar[str] = "cost"

    recipe: str
    precision: str
    parameters_total: int
    parameters_trainable: int
    macs: int
    """Multiply-accumulates for one image; with an early exit, for one that does not exit early."""
    size_bytes: int
    random_weights: bool
    """Whether the weights are random, so that only the cost may be shown."""
    training_epochs: int
    training_seconds: float
    training_hardware: str
    seed: int | None = None
    """Seed of the training; None in rows older than this field."""
    second_looks: float | None = None
    """Share of validation images for which an early exit needs the second view, 0–1.

    None if all images take the same path, and in rows older than this field.
    """

    def accuracy_per_million_parameters(self, accuracy: float) -> float:
        """Return the reference study's efficiency: percentage points per million parameters.

        It favours the smallest model without bound (a constant answer with ten parameters scores a
        million), so it is shown, and nothing is ranked by it.

        Args:
            accuracy: 0–1.
        """
        return accuracy * 100 / (self.parameters_total / 1e6)


@dataclass(frozen=True, config=STRICT)
class VariantMeasurement(Measurement):
    """A variant's source and the differences from it, from its card or its refusal."""

    kind: ClassVar[str] = "variant"

    precision: str
    recipe: str
    size_bytes: int
    record: VariantRecord
    parity: Parity
    """Parity with its source, on validation images."""
    refused: str | None
    """Reason for refusal, phrased to follow "it"; None for an accepted variant."""


def variant_of(card: ModelCard) -> VariantMeasurement | None:
    """Return the row of a variant; None for other models."""
    return None if card.variant is None else _variant(card, card.variant, None)


def refused_variant(refused: RefusedVariant) -> VariantMeasurement | None:
    """Return the row of a refused variant; None if it names no source."""
    card = refused.card
    return None if card.variant is None else _variant(card, card.variant, refused.reason)


def _variant(card: ModelCard, record: VariantRecord, refused: str | None) -> VariantMeasurement:
    return VariantMeasurement(
        card.precision, card.recipe, card.size_bytes, record, card.parity, refused
    )


@dataclass(frozen=True, config=STRICT)
class StartSample:
    """One fresh process that loads a model and classifies."""

    import_ns: int
    """Time from process start until the libraries are imported."""
    session_ns: int
    """Time to create the session: reading and optimising."""
    first_answer_ns: int
    ready_ns: int
    """Time from process start to the first result, measured by the parent."""
    resident_bytes_libraries: int
    """Resident memory with the libraries but no model."""
    resident_bytes_ready: int
    """Resident memory after the first result."""
    peak_resident_bytes: int
    """Peak resident memory, including a batch of ``peak_batch_size`` images."""


@dataclass(frozen=True, config=STRICT)
class ResourceMeasurement(Measurement):
    """Memory, start-up time and energy of a model."""

    kind: ClassVar[str] = "resources"

    provider: str
    threads: int
    starts: tuple[StartSample, ...]
    peak_batch_size: int
    activation_bytes_largest: int | None
    """Inputs plus outputs of the largest node for one image, in bytes, without weights."""
    activation_bytes_total: int | None
    """Outputs of all nodes for one image, in bytes; None if the runtime's profile has no sizes."""
    energy_source: str | None
    """``RAPL`` (CPU packages) or ``NVML`` (the GPU); None without a meter."""
    energy_joules: float | None
    """Energy of the whole package or GPU while classifying ``energy_images``, including idle power.
   """
    energy_images: int
    energy_seconds: float

    @property
    def key(self) -> str:
        """Key: execution provider and thread count."""
        return f"provider={self.provider} threads={self.threads}"

    @property
    def images_per_joule(self) -> float | None:
        """Images classified per joule; None without a meter or if its reading did not change."""
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
        """Median time to create the session; None without starts."""
        return self._median([one.session_ns / 1e6 for one in self.starts])

    @property
    def ready_seconds(self) -> float | None:
        """Median time from process start to the first result; None without starts."""
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
    """Training record of a model: from its card, and by epoch if ``history.csv`` exists."""

    kind: ClassVar[str] = "training"

    seconds_per_epoch: tuple[float, ...]
    best_epoch: int
    """Epoch whose weights were kept, from 1."""
    train_accuracy: float | None
    """Training accuracy of the kept weights, from the card; the next two fields are similar."""
    validation_accuracy: float | None
    test_accuracy: float | None
    epochs: tuple[EpochFigures, ...]
    """Figures of each epoch; empty without a ``history.csv``."""
    recipe_fields: dict[str, Any] | None = None
    """Recipe fields on the card. None in rows older than this field."""

    @property
    def validation_curve(self) -> tuple[float, ...]:
        """Validation accuracy after each epoch, 0–1."""
        return tuple(epoch.validation_accuracy for epoch in self.epochs)
