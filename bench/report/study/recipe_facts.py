"""Factors of a transfer-learning recipe, read from the recipe fields of a card."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.rows.selection import ModelResult
from cifar10.card import DESCRIPTIVE_FIELDS

TITLES: Final = {
    "preprocessing": "preprocessing",
    "resolution": "resolution",
    "base": "training of the base",
    "statistics": "statistics of batch normalisation in training",
    "epochs": "epochs",
    "images": "training images",
    "head": "head",
    "augmentation": "augmentation",
    "optimisation": "batch size, learning rate and schedule",
}
"""Title of each factor in the report, in the order shown."""

_PREPROCESSING: Final = {"unit": "x/255", "native": "native"}
_KNOWN: Final = DESCRIPTIVE_FIELDS | {
    "expected_parameters", "architecture", "batch_size", "phases", "augmentation", "train_images",
}  # fmt: skip
"""Fields that are compared one by one or have no effect; all others count as optimisation."""


@dataclass(frozen=True)
class RecipeFacts:
    """Factors of a transfer-learning recipe."""

    backbone: str
    preprocessing: str
    resolution: int
    """Pixels a side, after resizing in the graph."""
    trained_layers: tuple[int, ...]
    """Number of trained last layers of the base, in each phase."""
    batch_statistics: bool
    """Whether trained batch normalisation uses each batch's own statistics."""
    phase_epochs: tuple[int, ...]
    """Maximum number of epochs in each phase."""
    images: int | None
    """Number of training images; None for all."""
    head: str
    augmentation: str
    rates: tuple[str, ...]
    """Learning rate and schedule of each phase, as JSON."""
    optimisation: str
    """Batch size and all remaining fields, as JSON."""

    def shown(self, factor: str) -> str:
        """Return a factor's value in words."""
        if factor == "resolution":
            return f"{self.resolution} px"
        if factor == "base":
            most = max(self.trained_layers, default=0)
            phases = zip(self.trained_layers, self.phase_epochs, strict=False)
            more = " + ".join(str(epochs) for layers, epochs in phases if layers)
            return f"last {most} layers trained ({more} epochs more)" if most else "frozen"
        if factor == "statistics":
            return "each batch's" if self.batch_statistics else "stored"
        if factor == "epochs":
            return f"{' + '.join(map(str, self.phase_epochs))} epochs"
        if factor == "images":
            return "all images" if self.images is None else f"{self.images:,} training images"
        if factor == "preprocessing":
            return _PREPROCESSING.get(self.preprocessing, self.preprocessing)
        return str(getattr(self, factor))

    def ordinal(self, factor: str) -> tuple[float, str]:
        """Return a sort key for a factor's values, the reference study's value first."""
        match factor:
            case "resolution":
                return float(self.resolution), ""
            case "base":
                return float(max(self.trained_layers, default=0)), ""
            case "statistics":
                return float(self.batch_statistics), ""
            case "epochs":
                return float(sum(self.phase_epochs)), ""
            case "images":
                return -float(self.images or math.inf), ""
            case "preprocessing":
                return float(self.preprocessing != "unit"), self.preprocessing
            case _:
                text = str(getattr(self, factor))
                return float(len(text)), text


def facts_of(result: ModelResult) -> RecipeFacts | None:
    """Return the factors of its recipe; None without a backbone, or if the row lacks the fields."""
    fields = result.training.recipe_fields if result.training else None
    architecture = (fields or {}).get("architecture")
    if fields is None or not isinstance(architecture, Mapping) or "backbone" not in architecture:
        return None
    phases = [phase for phase in fields.get("phases", []) if isinstance(phase, Mapping)]
    rest = {key: value for key, value in fields.items() if key not in _KNOWN}
    rates = [_without(phase, "name", "epochs", "patience") for phase in phases]
    return RecipeFacts(
        backbone=str(architecture["backbone"]),
        preprocessing=str(architecture.get("preprocessing")),
        resolution=int(architecture.get("resolution", 32)),
        trained_layers=tuple(int(count) for count in architecture.get("trained_layers", ())),
        batch_statistics=bool(architecture.get("batch_statistics", False)),
        phase_epochs=tuple(int(phase.get("epochs", 0)) for phase in phases),
        images=fields.get("train_images"),
        head=_head(architecture.get("head")),
        augmentation=_augmentation(fields.get("augmentation")),
        rates=tuple(_json(rate) for rate in rates),
        optimisation=_json({"batch_size": fields.get("batch_size"), **rest}),
    )


def differing(first: RecipeFacts, second: RecipeFacts) -> tuple[str, ...]:
    """Return the factors in which two recipes of one backbone differ, as keys of :data:`TITLES`.

    Training the base adds phases, so epochs and learning rates are compared only for the phases
    that both have.
    """
    found = [
        factor
        for factor in (
            "preprocessing", "resolution", "images", "head", "augmentation", "optimisation",
        )
        if getattr(first, factor) != getattr(second, factor)
    ]  # fmt: skip
    phases = max(len(first.phase_epochs), len(second.phase_epochs))
    if max(first.trained_layers, default=0) != max(second.trained_layers, default=0):
        found.append("base")
        phases = min(len(first.phase_epochs), len(second.phase_epochs))
    if first.batch_statistics != second.batch_statistics:
        found.append("statistics")
    if first.phase_epochs[:phases] != second.phase_epochs[:phases]:
        found.append("epochs")
    common = min(len(first.rates), len(second.rates))
    if first.rates[:common] != second.rates[:common]:
        found.append("optimisation")
    return tuple(factor for factor in TITLES if factor in found)


def _head(head: Any) -> str:
    if not isinstance(head, Mapping):
        return str(head)
    layers = [str(head.get("pooling"))]
    dropout = list(head.get("dropout") or ())
    for position, units in enumerate(head.get("dense_units") or ()):
        layers.append(f"dense {units}")
        if position < len(dropout):
            layers.append(f"dropout {dropout[position]:g}")
    return ", ".join([*layers, "dense 10"])


def _augmentation(augmentation: Any) -> str:
    if not augmentation:
        return "none"
    return augmentation if isinstance(augmentation, str) else _json(augmentation)


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
