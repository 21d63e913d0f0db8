"""Rows of variants at another precision. See :mod:`bench.rows.kinds.measurements`."""

from dataclasses import dataclass

from cifar10.card import ModelCard, Parity, RefusedVariant, VariantRecord


@dataclass(frozen=True)
class VariantMeasurement:
    """What a variant was made from and what that changed, from its card or its refusal."""

    precision: str
    recipe: str
    size_bytes: int
    record: VariantRecord
    parity: Parity
    """With its source, on validation images."""
    refused: str | None
    """Why it is not to be used, to be read after "it"; None for one that is."""


def variant_of(card: ModelCard) -> VariantMeasurement | None:
    """What is to be recorded of a model; None where it is no variant."""
    return None if card.variant is None else _measurement(card, card.variant, None)


def refused_variant(refused: RefusedVariant) -> VariantMeasurement | None:
    """What is to be recorded of a variant that was refused; None where it names no source."""
    card = refused.card
    return None if card.variant is None else _measurement(card, card.variant, refused.reason)


def _measurement(card: ModelCard, record: VariantRecord, refused: str | None) -> VariantMeasurement:
    return VariantMeasurement(
        card.precision, card.recipe, card.size_bytes, record, card.parity, refused
    )
