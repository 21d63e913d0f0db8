"""Run a recipe: epochs, checkpoints, early stopping, and records of the result.

**Interruptions.** A training can be killed at any moment and started again with the same command.
It continues from the last complete epoch: weights and optimizer come from the checkpoint, and each
epoch's order and random numbers from (seed, epoch) alone. On the TensorFlow CPU backend,
on one machine, the resumed weights are bit for bit those of an uninterrupted training (a test kills
one and compares). TensorFlow's op determinism is not needed for that on a CPU and made an epoch
take about half as long again, so it stays off. On a GPU, or with another number of cores, sums are
taken in another order, and the result is only statistically the same.
"""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from cifar10.accuracy import Accuracy, measure_accuracy
from cifar10.card import (
    SCHEMA_VERSION,
    AccuracyRecord,
    TeacherRecord,
    TrainingCost,
    TrainingRecord,
    read_training_record,
)
from cifar10.dataset import Dataset, Split
from cifar10.environment import cache_dir
from cifar10.errors import InvalidCardError, RecipeError, StoreError
from cifar10.records import to_json
from cifar10.store import (
    HISTORY_FILE,
    KERAS_FILE,
    TRAINING_FILE,
    ModelStore,
    file_sha256,
    write_atomic,
)
from training import batches
from training.callbacks import LearningRate, StepCallback
from training.checkpoint import Checkpoint, State, check_identity, training_identity
from training.device_epochs import DeviceEpochs, DeviceFit, devices_for, runs_here
from training.distillation import find_teacher
from training.drawn_epochs import Asked, Drawing, ahead_of_time
from training.history import EpochRow, best_epoch, history_csv, phase_is_over
from training.networks.backbones import Backbone, WeightsChoice
from training.networks.models import compile_model, count_parameters, describe_preprocessing
from training.observer import Observer
from training.precision import Precision, computing_in, in_float32
from training.provenance import git_commit, hardware, library_versions
from training.recipes.schema import Phase, Recipe, recipe_fields
from training.stages import Inputs, Kept, Stages, make_stages, weights_file
from training.targets import make_targets

CHECKPOINT_FOLDER: Final = "checkpoint"

_EVALUATION_BATCH: Final = 256
"""Batch size of evaluations; affects only speed and memory."""


@dataclass(frozen=True)
class Outcome:
    """A finished training."""

    record: TrainingRecord
    already_there: bool
    """Whether it was already finished, so that nothing was done."""


def train(
    recipe: Recipe,
    dataset: Dataset,
    store: ModelStore,
    *,
    name: str | None = None,
    seed: int = 0,
    restart: bool = False,
    weights: WeightsChoice = WeightsChoice(),
    precision: Precision = "fp32",
    devices: int | None = None,
    observer: Observer = Observer(),
) -> Outcome:
    """Train ``recipe``, continue its training, or find it finished.

    Leaves ``model.keras``, ``history.csv`` and, last, ``training.json`` in the model's folder.

    Args:
        name: name of the model; None: the recipe's.
        seed: seed of the weights, the order of the images and all other random numbers.
        restart: discard what was trained so far. An exported ``model.onnx`` and its card stay until
            the next export replaces them.
        weights: weights of the recipe's backbone; ignored by recipes without one.
        precision: precision of layers in training. The stored weights and the kept model are
            float32 in any case.
        devices: number of devices that share each step, see
            :func:`training.device_epochs.devices_for`; a training may continue on another number.
        observer: receives the progress.

    Raises:
        RecipeError: the folder holds another training (recipe, seed, dataset or weights), or the
            model does not have the recipe's parameters, or its teacher is not in the store, or the
            devices cannot share a step.
        WeightsError: the backbone's weights are not available. Nothing was written.
        InvalidModelNameError: ``name`` is not a valid model name.
        StoreError: the folder is damaged.
    """
    name = name or recipe.name
    folder = store.folder(name)
    checkpoint = Checkpoint(folder / CHECKPOINT_FOLDER)
    random = weights.random if isinstance(recipe.architecture, Backbone) else None
    identity = training_identity(recipe_fields(recipe), seed, dataset.record, random, precision)
    finished = None if restart else _finished(folder)
    if finished is not None:
        found = training_identity(
            finished.recipe_fields,
            finished.seed,
            finished.dataset,
            finished.weights.random if finished.weights is not None else None,
            finished.training.precision,
        )
        check_identity(folder, found, identity)
        checkpoint.remove()  # a leftover, if the process was killed after writing the record
        return Outcome(finished, already_there=True)
    devices = devices_for(recipe.batch_size, devices)
    commit = git_commit()  # now, because the code may be edited during the training
    file = weights_file(recipe, weights)
    if file is not None:
        identity["weights_sha256"] = file.sha256
    teacher = find_teacher(recipe, store)
    if teacher is not None:
        identity["teacher_sha256"] = teacher.record.sha256
    state = None if restart else checkpoint.read()
    if state is not None:
        found = state.identity
        if teacher is not None and not _was_taught(recipe, state.history):
            found = found | {"teacher_sha256": teacher.record.sha256}
        check_identity(checkpoint.folder, found, identity)
    drawing_epochs = (
        ahead_of_time(dataset.train.images)
        if runs_here()
        else nullcontext(Drawing(dataset.train.images))
    )
    with computing_in(precision), drawing_epochs as drawing:
        stages = make_stages(recipe, dataset, seed, file, observer)
        taught = None
        if teacher is not None and recipe.distillation is not None:
            taught = teacher.targets(
                recipe.distillation, dataset, cache_dir() / "targets", observer.teacher_asked
            )
        job = _Job(
            name, recipe, dataset, seed, folder, checkpoint, identity, commit, stages, observer,
            teacher.record if teacher is not None else None, taught, precision, drawing, devices,
        )  # fmt: skip
        if restart:  # only now: an error before the start must not lose the old training
            _forget(folder, checkpoint)
        if state is not None:
            state = checkpoint.mark_resumed(state)
            observer.resumed(state.history)
        return Outcome(_finish(job, _run_phases(job, state)), already_there=False)


@dataclass(frozen=True)
class _Job:
    name: str
    recipe: Recipe
    dataset: Dataset
    seed: int
    folder: Path
    checkpoint: Checkpoint
    identity: dict[str, Any]
    commit: str
    stages: Stages
    observer: Observer
    teacher: TeacherRecord | None
    taught: NDArray[np.float32] | None
    """Teacher's part of the targets, in the order of the training images."""
    precision: Precision
    drawing: Drawing
    devices: int


def _was_taught(recipe: Recipe, history: tuple[EpochRow, ...]) -> bool:
    """Whether the recipe's teacher had a part in any of these epochs: until then it may be another
    one, or missing."""
    taught = {phase.name for phase in recipe.phases if recipe.distillation_in(phase) is not None}
    return any(row.phase in taught for row in history)


def _finished(folder: Path) -> TrainingRecord | None:
    path = folder / TRAINING_FILE
    try:
        record = read_training_record(path.read_bytes())
    except FileNotFoundError:
        return None
    except InvalidCardError as error:
        message = f"{path}: {error} Train again with --restart."
        raise InvalidCardError(message) from error
    model = folder / KERAS_FILE
    found = file_sha256(model) if model.is_file() else "no such file"
    if found != record.keras_sha256:
        message = (
            f"{model} is not the file that {TRAINING_FILE} describes: SHA-256 {found}, expected "
            f"{record.keras_sha256}. Put it back, or train again with --restart."
        )
        raise StoreError(message)
    return record


def _forget(folder: Path, checkpoint: Checkpoint) -> None:
    # Remove the record first: without it, the rest does not count as a finished model.
    for name in (TRAINING_FILE, HISTORY_FILE, KERAS_FILE):
        (folder / name).unlink(missing_ok=True)
    checkpoint.remove()


def _run_phases(job: _Job, state: State | None) -> State:
    """Run all epochs that ``state`` does not have yet."""
    checkpoint = job.checkpoint
    for phase in job.recipe.phases:
        history = state.history if state is not None else ()
        if phase_is_over(history, phase):
            continue
        if state is not None and history[-1].phase == phase.name:
            model = checkpoint.load(state.latest, compiled=True)
        else:
            kept = _kept(job, state) if state is not None else None
            model = job.stages.begin(phase, kept)
            soft_targets = job.recipe.distillation_in(phase) is not None
            compile_model(model, phase, job.recipe.label_smoothing, soft_targets=soft_targets)
        inputs = job.stages.inputs(phase)
        fit = DeviceEpochs(model, job.recipe.batch_size, job.devices).fit if runs_here() else None
        while not phase_is_over(history, phase):
            row = _run_epoch(job, model, fit, inputs, phase, history)
            history = (*history, row)
            state = checkpoint.save(model, job.identity, history, state)
            job.observer.epoch_finished(row, best=best_epoch(history) == row.epoch)
    if state is None:  # cannot happen: the recipe has phases, and phases have epochs
        message = f"recipe {job.recipe.name!r} ran no epoch"
        raise RecipeError(message)
    return state


def _first_epoch(history: tuple[EpochRow, ...], phase: Phase) -> int:
    """Return the number of the phase's first epoch; the next epoch's if the phase has none yet."""
    return next((row.epoch for row in history if row.phase == phase.name), len(history) + 1)


def _kept(job: _Job, state: State) -> Kept:
    """Return the best weights so far and their phase."""
    phase = state.history[best_epoch(state.history) - 1].phase
    return Kept(job.checkpoint.load(state.best, compiled=False), phase)


def _run_epoch(
    job: _Job,
    model: keras.Model,
    fit_on_device: DeviceFit | None,
    inputs: Inputs,
    phase: Phase,
    history: tuple[EpochRow, ...],
) -> EpochRow:
    train, validation = job.dataset.train, job.dataset.validation
    epoch = len(history) + 1
    started = time.perf_counter()
    augmentation = job.recipe.augmentation_in(phase) if inputs.are_pixels else None
    asked = [
        Asked(job.seed, number, augmentation)
        for number in range(epoch, _first_epoch(history, phase) + phase.epochs)
    ]
    drawn = job.drawing.take(asked[0], tuple(asked[1:]))
    order = drawn.order
    keras.utils.set_random_seed(drawn.keras_seed)
    images = inputs.train[order] if drawn.images is None else drawn.images
    steps = math.ceil(len(order) / job.recipe.batch_size)
    before = (epoch - _first_epoch(history, phase)) * steps
    rates = LearningRate(phase, before, phase.epochs * steps)
    classes = len(job.dataset.labels)
    targets = make_targets(job.recipe, phase, train.labels[order], classes, job.taught, order)
    job.observer.epoch_started(phase, epoch, steps)
    if fit_on_device is not None:
        fitted = fit_on_device(images, targets, rates.of_epoch(steps))
        job.observer.step_finished(steps, fitted["loss"], fitted["accuracy"])
    else:
        callbacks = [rates, StepCallback(job.observer)]
        fitted = batches.fit(model, images, targets, job.recipe.batch_size, callbacks)
    evaluated = batches.evaluate(
        model,
        inputs.validation,
        make_targets(job.recipe, phase, validation.labels, classes),
        _EVALUATION_BATCH,
    )
    return EpochRow(
        epoch=epoch,
        loss=fitted["loss"],
        accuracy=fitted["accuracy"],
        validation_loss=evaluated["loss"],
        validation_accuracy=evaluated["accuracy"],
        seconds=time.perf_counter() - started,
        learning_rate=rates.first,
        phase=phase.name,
    )


def _finish(job: _Job, state: State) -> TrainingRecord:
    """Evaluate the best weights and write the three files, the record last."""
    recipe, folder, checkpoint = job.recipe, job.folder, job.checkpoint
    kept = _kept(job, state)
    model = in_float32(job.stages.whole(kept), recipe, job.precision)
    random_weights = job.stages.weights is not None and job.stages.weights.random
    seconds = tuple(row.seconds for row in state.history)
    record = TrainingRecord(
        schema_version=SCHEMA_VERSION,
        name=job.name,
        recipe=recipe.name,
        recipe_fields=recipe_fields(recipe),
        seed=job.seed,
        commit=job.commit,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        preprocessing=describe_preprocessing(recipe),
        parameters=count_parameters(model),
        weights=job.stages.weights,
        dataset=job.dataset.record,
        accuracy=None if random_weights else _measure(job, kept, model),
        training=TrainingCost(
            epochs=len(state.history),
            best_epoch=best_epoch(state.history),
            seconds=sum(seconds),
            seconds_per_epoch=seconds,
            resumed=state.resumed,
            backend=keras.backend.backend(),
            hardware=hardware(),
            precision=job.precision,
            devices=job.devices,
        ),
        keras_sha256=checkpoint.write_model(model, folder / KERAS_FILE),
        versions=library_versions(),
        teacher=job.teacher,
        labels=job.dataset.labels,
        image_shape=job.dataset.image_shape,
    )
    if not random_weights:  # its accuracies would be read as results
        write_atomic(folder / HISTORY_FILE, history_csv(state.history))
    write_atomic(folder / TRAINING_FILE, to_json(record))
    checkpoint.remove()
    return record


def _measure(job: _Job, kept: Kept, whole: keras.Model) -> AccuracyRecord:
    """Measure the accuracy of the kept weights.

    The full model is tested on pixels. If part of it was trained on cached features, training and
    validation accuracy are those of that part on the features.
    """
    dataset = job.dataset
    phase = next(phase for phase in job.recipe.phases if phase.name == kept.phase)
    inputs = job.stages.inputs(phase)
    model = whole if inputs.are_pixels else kept.model
    job.observer.evaluating("train")
    train = _evaluate(model, inputs.train, dataset.train, dataset.labels)
    job.observer.evaluating("validation")
    validation = _evaluate(model, inputs.validation, dataset.validation, dataset.labels)
    job.observer.evaluating("test")
    test = _evaluate(whole, dataset.test.images, dataset.test, dataset.labels)
    return AccuracyRecord(train, validation, test, train.accuracy - test.accuracy)


def _evaluate(
    model: keras.Model, inputs: NDArray[Any], split: Split, names: tuple[str, ...]
) -> Accuracy:
    probabilities = batches.predict(model, inputs, _EVALUATION_BATCH)
    return measure_accuracy(np.argmax(probabilities, axis=1), split.labels, names)
