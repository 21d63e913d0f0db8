"""What a card's recipe fields say of a training with a pretrained backbone: the factors that the
reference study's conclusions are about."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.selection import ModelResult

TITLES: Final = {
    "preprocessing": "preprocessing",
    "resolution": "resolution",
    "base": "training of the base",
    "epochs": "epochs",
    "head": "head",
    "augmentation": "augmentation",
    "optimisation": "batch size, learning rate and schedule",
}
"""Factor → what it is called in the report, in the order told."""

_PREPROCESSING: Final = {"unit": "x/255", "native": "native"}
_KNOWN: Final = frozenset(
    ("name", "source", "expected_test_accuracy", "cost", "expected_parameters", "smoke",
     "architecture", "batch_size", "phases", "augmentation")
)  # fmt: skip
"""Fields looked at one by one, or that change nothing; all others count as optimisation."""


@dataclass(frozen=True)
class RecipeFacts:
    """A transfer-learning recipe, factor by factor; in words where it is to be shown."""

    backbone: str
    preprocessing: str
    resolution: int
    """Pixels a side, after resizing in the graph."""
    trained_layers: tuple[int, ...]
    """Of the base, its last ones, in each phase."""
    batch_statistics: bool
    """Whether batch normalisation that is trained uses each batch's own statistics."""
    phase_epochs: tuple[int, ...]
    """At most, in each phase."""
    head: str
    augmentation: str
    optimisation: str
    """Batch size, each phase's learning rate, and all that has no name here, as JSON."""

    def shown(self, factor: str) -> str:
        """A factor's value for people."""
        if factor == "resolution":
            return f"{self.resolution} px"
        if factor == "base":
            most = max(self.trained_layers, default=0)
            how = " with each batch's statistics" if self.batch_statistics else ""
            return f"last {most} layers trained{how}" if most else "frozen"
        if factor == "epochs":
            return f"{' + '.join(map(str, self.phase_epochs))} epochs"
        if factor == "preprocessing":
            return _PREPROCESSING.get(self.preprocessing, self.preprocessing)
        return str(getattr(self, factor))

    def ordinal(self, factor: str) -> tuple[float, str]:
        """Orders the values of a factor, the reference study's way first."""
        match factor:
            case "resolution":
                return float(self.resolution), ""
            case "base":
                most = max(self.trained_layers, default=0)
                return float(most), str(self.batch_statistics)
            case "epochs":
                return float(sum(self.phase_epochs)), ""
            case "preprocessing":
                return float(self.preprocessing != "unit"), self.preprocessing
            case _:
                text = str(getattr(self, factor))
                return float(len(text)), text


def facts_of(result: ModelResult) -> RecipeFacts | None:
    """What its recipe says; None where it has no backbone, or the row does not tell."""
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
        head=_head(architecture.get("head")),
        augmentation=_augmentation(fields.get("augmentation")),
        optimisation=_json({"batch_size": fields.get("batch_size"), "phases": rates[:1], **rest}),
    )


def is_transfer(result: ModelResult) -> bool:
    """Whether it stands on a pretrained backbone."""
    return facts_of(result) is not None


def differing(first: RecipeFacts, second: RecipeFacts) -> tuple[str, ...]:
    """The factors in which two recipes of one backbone differ, as keys of :data:`TITLES`.

    A base that is trained further needs phases of its own, so of the epochs only the phases that
    both have are compared.
    """
    found = [
        factor
        for factor in ("preprocessing", "resolution", "head", "augmentation", "optimisation")
        if getattr(first, factor) != getattr(second, factor)
    ]
    bases = [
        (max(facts.trained_layers, default=0), facts.batch_statistics) for facts in (first, second)
    ]
    if bases[0] != bases[1]:
        found.append("base")
    common = min(len(first.phase_epochs), len(second.phase_epochs))
    if first.phase_epochs[:common] != second.phase_epochs[:common]:
        found.append("epochs")
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
