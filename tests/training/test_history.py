"""Tests of when a phase ends and which epoch is kept, without any training."""

import csv
import io

import pytest

from training.history import EpochRow, best_epoch, history_csv, phase_is_over
from training.recipes.schema import Phase

PHASE = Phase(name="all", epochs=10, learning_rate=1e-3, patience=3)


def rows(*accuracies: float, phase: str = "all", after: int = 0) -> tuple[EpochRow, ...]:
    return tuple(
        EpochRow(after + index, 1.0, 0.5, 1.0, accuracy, 2.5, 1e-3, phase)
        for index, accuracy in enumerate(accuracies, 1)
    )


@pytest.mark.parametrize(
    ("accuracies", "over"),
    [
        ((), False),
        ((0.5,), False),
        ((0.5, 0.4, 0.4), False),  # two without a new best
        ((0.5, 0.4, 0.4, 0.4), True),  # three
        ((0.5, 0.5, 0.5, 0.5), True),  # an equal is not a new best
        ((0.5, 0.4, 0.4, 0.6), False),  # a new best in time
        (tuple(epoch / 20 for epoch in range(10)), True),  # all epochs
        (tuple(epoch / 20 for epoch in range(9)), False),
    ],
)
def test_a_phase_ends_after_its_patience_or_its_epochs(
    accuracies: tuple[float, ...], over: bool
) -> None:
    assert phase_is_over(rows(*accuracies), PHASE) is over


def test_the_earliest_of_the_best_epochs_is_kept() -> None:
    assert best_epoch(rows(0.5, 0.7, 0.6, 0.7)) == 2
    with pytest.raises(ValueError, match="empty"):
        best_epoch(())


def test_a_second_phase_has_its_own_patience() -> None:
    first = rows(0.9, 0.5, 0.5, 0.5)
    second = Phase(name="second", epochs=10, learning_rate=1e-4, patience=2)
    assert not phase_is_over(first, second)
    assert not phase_is_over((*first, *rows(0.6, phase="second", after=4)), second)
    assert phase_is_over((*first, *rows(0.6, 0.6, phase="second", after=4)), second)


def test_history_csv_reads_back() -> None:
    lines = list(csv.DictReader(io.StringIO(history_csv(rows(0.1, 1 / 3)))))
    assert list(lines[0]) == [
        "epoch",
        "loss",
        "accuracy",
        "validation_loss",
        "validation_accuracy",
        "seconds",
        "learning_rate",
        "phase",
    ]
    assert [float(line["validation_accuracy"]) for line in lines] == [0.1, 1 / 3]
    assert [int(line["epoch"]) for line in lines] == [1, 2]
