"""Write a model's ``README.md`` from its card, with the front matter that Hugging Face reads.

Source of the fields: huggingface.co/docs/hub/model-cards.
"""

import json
from typing import Any, Final

from cifar10.accuracy import Accuracy
from cifar10.card import ModelCard
from cifar10.environment import models_dir
from cifar10.labels import DATASET_NAME
from cifar10.store import README_FILE, ModelStore, write_atomic

_HUB_DATASETS: Final = {DATASET_NAME: "uoft-cs/cifar10"}
"""Data set → its name on the Hugging Face hub."""


def describe(card: ModelCard) -> str:
    """Return the text of ``README.md``, in Markdown; the same card gives the same text."""
    sections = [
        f"# {_escaped(card.name)}",
        _summary(card),
        _facts(card),
        _usage(card),
        _accuracy(card),
        _confidence(card),
        "Everything else that is known about the model is in `card.json`.",
    ]
    body = "\n\n".join(section for section in sections if section)
    return f"---\n{_front_matter(card)}---\n\n{body}\n"


def _front_matter(card: ModelCard) -> str:
    """Return the metadata as YAML; each value is JSON, which YAML includes."""
    is_cifar10 = card.dataset.name == DATASET_NAME
    hub_name = _HUB_DATASETS.get(card.dataset.name)
    fields: dict[str, Any] = {}
    if is_cifar10:  # who trained on their own images chooses their own licence
        fields["license"] = "apache-2.0"
    fields |= {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "onnxruntime", card.precision, card.recipe],
    }
    if hub_name is not None:
        fields["datasets"] = [hub_name]
    if card.accuracy is not None:
        fields["metrics"] = ["accuracy"]
        result = {
            "task": {"type": "image-classification"},
            "dataset": {
                "name": card.dataset.variant,
                "type": hub_name or card.dataset.name,
                "split": "test",
            },
            "metrics": [{"type": "accuracy", "value": round(card.accuracy.test.accuracy, 4)}],
        }
        fields["model-index"] = [{"name": card.name, "results": [result]}]
    return "".join(
        f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()
    )


def _summary(card: ModelCard) -> str:
    count = len(card.labels)
    text = (
        f"Classifies images of {card.width} × {card.height} pixels into {count:,} classes, among "
        f"them `none`: none of the others."
        if card.has_rejection
        else f"Classifies images of {card.width} × {card.height} pixels into {count:,} classes."
    )
    text += f" Recipe `{card.recipe}`, data set {_escaped(card.dataset.variant)}."
    if card.variant is not None:
        text += f" The {card.precision} variant of `{card.variant.source}`."
    if card.weights is not None and card.weights.random:
        text += " **Its weights are random: it is for measuring cost only.**"
    elif card.weights is not None:
        text += f" It starts from {_escaped(card.weights.source)}."
    if card.teacher is not None:
        text += f" Its teacher was `{card.teacher.name}`."
    return f"{text}\n\nClasses, in order: {', '.join(map(_escaped, card.labels))}."


def _facts(card: ModelCard) -> str:
    cost = card.training
    rows = [
        ("parameters", f"{card.parameters.total:,}"),
        ("multiply-accumulates per image", f"{card.macs:,}"),
        ("`model.onnx`", f"{card.size_bytes:,} bytes, {card.precision}, opset {card.opset}"),
        ("SHA-256", f"`{card.sha256}`"),
        ("input", f"`{card.input.name}`, uint8 (N, {card.height}, {card.width}, 3), RGB, 0–255"),
        ("output", f"`{card.output.name}`, float32 (N, {len(card.labels)}), each row sums to 1"),
        ("preprocessing", f"in the graph: {_escaped(card.preprocessing)}"),
        ("training", f"{cost.epochs} epochs, {cost.seconds:,.0f} s on {_escaped(cost.hardware)}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _usage(card: ModelCard) -> str:
    crops = card.fit == "crop"
    how = "after a centred crop to its shape" if crops else "without keeping their aspect ratio"
    size = f"({card.width}, {card.height}), Image.Resampling.BICUBIC"
    resized = f"ImageOps.fit(image, {size})" if crops else f"image.resize({size})"
    return f"""## Use

Images are resized to the input's size, {how}, with an antialiased bicubic filter. Everything else
is in the graph.

```python
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
pixels = np.asarray({resized})[None]
(probabilities,) = session.run(None, {{"{card.input.name}": pixels}})
print(probabilities[0].argmax())
```"""


def _accuracy(card: ModelCard) -> str:
    if card.accuracy is None:
        return ""
    splits = (
        ("train", card.accuracy.train),
        ("validation", card.accuracy.validation),
        ("test", card.accuracy.test),
    )
    recalls = card.accuracy.test.per_class.items()
    return "\n".join(
        [
            f"## Accuracy on {_escaped(card.dataset.variant)}",
            "",
            "| images | accuracy | 95 % interval | count |",
            "|---|--:|--:|--:|",
            *(f"| {name} | {_figures(accuracy)} |" for name, accuracy in splits if accuracy),
            "",
            "Share of each class's test images that is classified correctly:",
            "",
            "| class | recall |",
            "|---|--:|",
            *(f"| {_escaped(name)} | {recall:.2%} |" for name, recall in recalls),
        ]
    )


def _figures(accuracy: Accuracy) -> str:
    interval = f"{accuracy.low:.2%}–{accuracy.high:.2%}"
    return f"{accuracy.accuracy:.2%} | {interval} | {accuracy.count:,}"


def _confidence(card: ModelCard) -> str:
    found = card.calibration
    if found is None:
        return ""
    sure = f"from {found.sure:.3f}" if found.sure <= 1 else "never"
    return (
        "## Confidence\n\nThe expected calibration error on "
        f"{found.image_count:,} {_escaped(found.images)} is {found.error:.4f}. An answer is "
        f"`sure` {sure}, `likely` from {found.likely:.3f}, otherwise `unsure`"
        + (f"; below {found.rejected:.3f} it is `none`." if found.rejected else ".")
    )


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line and in one cell."""
    plain = " ".join(text.split())
    return "".join(
        f"\\{character}" if character in "\\`*_|<>[]" else character for character in plain
    )


def rewrite(store: ModelStore) -> None:
    """Rewrite the README of each model in ``store``, after a change of cards or of this text."""
    for name in store.names():
        write_atomic(store.folder(name) / README_FILE, describe(store.card(name)))


if __name__ == "__main__":
    rewrite(ModelStore(models_dir()))
