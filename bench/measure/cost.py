"""What a model costs whatever the machine: parameters, multiply-accumulates, bytes."""

from bench.rows.kinds.measurements import CostMeasurement
from cifar10.errors import BenchError
from cifar10.store import StoredModel


def measure_cost(model: StoredModel) -> CostMeasurement:
    """The card's counts, its file size checked against the file.

    Raises:
        BenchError: the file is not as long as its card says.
    """
    card = model.card
    if len(model.onnx) != card.size_bytes:
        message = (
            f"{card.name}: model.onnx has {len(model.onnx):,} bytes, its card says "
            f"{card.size_bytes:,}. Run: python -m export {card.name}"
        )
        raise BenchError(message)
    return CostMeasurement(
        recipe=card.recipe,
        precision=card.precision,
        parameters_total=card.parameters.total,
        parameters_trainable=card.parameters.trainable,
        macs=card.macs,
        size_bytes=card.size_bytes,
        random_weights=card.weights is not None and card.weights.random,
        training_epochs=card.training.epochs,
        training_seconds=card.training.seconds,
        training_hardware=card.training.hardware,
        seed=card.seed,
        second_looks=card.early_exit.second_looks if card.early_exit is not None else None,
    )


def accuracy_per_million_parameters(accuracy: float, parameters: int) -> float:
    """The reference study's measure of efficiency: percentage points per million parameters.

    It favours the smallest model without bound (a constant answer with ten parameters scores a
    million), so it is shown, and nothing is ranked by it.

    Args:
        accuracy: 0–1.
        parameters: the total count.
    """
    return accuracy * 100 / (parameters / 1e6)
