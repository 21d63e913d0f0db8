"""A study on a Ray cluster: each model is a task, which another machine repeats if its own dies.

The tasks write the same files as :func:`training.study.run_study`, into a model store at a path
that all machines share. A repeated task continues from its last whole epoch.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from cifar10.dataset import Dataset
from cifar10.on_ray.cluster import connect
from cifar10.store import ModelStore
from training.networks.backbones import WeightsChoice
from training.study import Planned, StudyObserver, StudyRow, run_study

_TRIES: Final = 10
"""Number of times that a task is repeated after the death of its machine or process."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Address of a Ray cluster, and the cores and GPUs that each task reserves."""

    address: str
    cpus: float = 1
    gpus: float = 0


def run_study_on_ray(
    planned: Sequence[Planned],
    dataset: Dataset,
    store: ModelStore,
    *,
    cluster: Cluster,
    smoke: bool = False,
    weights: WeightsChoice = WeightsChoice(),
    observer: StudyObserver = StudyObserver(),
) -> list[StudyRow]:
    """Train all planned models on the cluster; a failed model becomes a row.

    The arguments are those of :func:`training.study.run_study`.

    Raises:
        RayUnavailableError: there is no cluster.
    """
    ray = connect(cluster.address)
    task = ray.remote(_train_one).options(
        num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=_TRIES
    )
    shared = ray.put(dataset)
    store = ModelStore(store.root.absolute())
    waiting = {}
    for number, one in enumerate(planned, 1):
        waiting[task.remote(one, shared, store, smoke, weights)] = one
        observer.model_started(one, number, len(planned))
    rows: dict[str, StudyRow] = {}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        one = waiting.pop(ready)
        try:
            row = ray.get(ready)
        except ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            row = StudyRow(one.name, None, f"{type(error).__name__}: {first}", False, 0.0)
        rows[one.name] = row
        observer.model_finished(row)
    return [rows[one.name] for one in planned]


def _train_one(
    planned: Planned, dataset: Dataset, store: ModelStore, smoke: bool, weights: WeightsChoice
) -> Any:
    from training.commands.options import prepare_keras

    prepare_keras()
    (row,) = run_study([planned], dataset, store, smoke=smoke, weights=weights)
    return row
