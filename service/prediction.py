"""Assemble the documents that answer a classification: one image's prediction, and who answered."""

from typing import Any

from service.models import LoadedModel


def prediction(model: LoadedModel, probabilities: list[float], top_k: int) -> dict[str, Any]:
    """Return what is said of one image.

    Args:
        model: the model that answered.
        probabilities: its answer, in the order of its labels.
        top_k: number of classes to list; all, if there are fewer.
    """
    labels = model.card.labels
    ranked = sorted(range(len(labels)), key=probabilities.__getitem__, reverse=True)
    best = ranked[0]
    label, confidence, calibration = labels[best], probabilities[best], model.card.calibration
    return {
        "label": label,
        "verdict": calibration.verdict(label, confidence) if calibration else None,
        "class_id": best,
        "confidence": confidence,
        "top_k": [
            {"label": labels[k], "class_id": k, "probability": probabilities[k]}
            for k in ranked[:top_k]
        ],
    }


def identity(model: LoadedModel) -> dict[str, str]:
    """Return who answered: model, file and device."""
    return {
        "model": model.card.name,
        "digest": model.card.sha256,
        "device": model.predictor.device,
    }
