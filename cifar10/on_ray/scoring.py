"""Classify a large number of image files on a Ray cluster, each exactly once.

The sorted files are divided into chunks. A chunk's answers become one Parquet file, written beside
its final place and moved there, so that a chunk that is repeated after a worker's death replaces
its own file. A run over the same files continues with the chunks that are missing.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cifar10.environment import Engine, engine
from cifar10.errors import Cifar10Error
from cifar10.on_ray.cluster import connect
from cifar10.predictor import Device
from cifar10.store import ModelStore, write_atomic

CHUNK: Final = 256
"""Number of files in one Parquet file."""
COLUMNS: Final = ("image", "label", "confidence", "error", "model")
"""Columns of the Parquet files: path, class, its probability, why there is none, and the model."""
_PLAN_FILE: Final = "_plan.json"  # readers of Parquet skip names that begin with an underscore

Progress = Callable[[int, int], None]
"""Callback with the number of finished files and the total."""


class OtherResultsError(Cifar10Error):
    """The output folder has the results of other files or another model."""


@dataclass(frozen=True)
class Scored:
    """Number of files of a finished run."""

    files: int
    unreadable: int
    """Files with an error in place of a class, among those scored now."""
    found_before: int
    """Files that an earlier run had scored."""


class _Scorer:
    """Actor that classifies chunks; it opens each model once."""

    def __init__(
        self,
        root: str,
        model: str | None,
        device: Device,
        engine_name: Engine,
        out: str,
        digests: dict[str, str],
    ) -> None:
        from cifar10.commands.predict import Asked, chosen

        store = ModelStore(Path(root))
        if _digests(store, model, device) != digests:
            message = f"the models in {root} on this machine are not those where the run began"
            raise OtherResultsError(message)
        self._asked = Asked(store, *chosen(store, model, _where(device)), device, engine_name)
        self._out = Path(out)

    def __call__(self, chunk: dict[str, Any]) -> dict[str, Any]:
        from cifar10.commands.predict import classify

        paths = [Path(str(file)) for file in chunk["files"]]
        answers = list(classify(self._asked, paths))
        columns = {name: [getattr(one, name) for one in answers] for name in COLUMNS}
        _write_parquet(self._out / _part(int(chunk["number"])), columns)
        unreadable = sum(one.error is not None for one in answers)
        return {"files": len(answers), "unreadable": unreadable}


def score(
    files: Sequence[Path],
    store: ModelStore,
    model: str | None,
    out: Path,
    *,
    address: str,
    device: Device = "auto",
    progress: Progress = lambda done, total: None,
) -> Scored:
    """Classify ``files`` and write the answers into the folder ``out``.

    Args:
        files: image files, at paths that every machine of the cluster can read.
        store: the models, at a path that every machine can read.
        model: the model to use; None: the server's default.
        out: folder of Parquet files with the columns :data:`COLUMNS`; shared.
        address: address of the cluster, or ``local``.
        device: ``auto``, ``cpu`` or ``cuda``; with ``cuda`` each worker takes a GPU.
        progress: receives the progress.

    Raises:
        RayUnavailableError: there is no cluster.
        OtherResultsError: ``out`` has other results.
    """
    out = out.absolute()
    names = sorted({str(path.absolute()) for path in files})
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    device = _where(device)
    digests = _digests(store, model, device)
    _check_plan(out, names, digests)
    left = [number for number in range(len(chunks)) if not (out / _part(number)).exists()]
    before = len(names) - sum(len(chunks[number]) for number in left)
    done, unreadable = before, 0
    progress(done, len(names))
    if left:
        ray = connect(address)
        from ray.data import DataContext, from_items

        DataContext.get_current().enable_progress_bars = False
        work = from_items(
            [{"number": number, "files": chunks[number]} for number in left],
            override_num_blocks=len(left),
        ).map(
            _Scorer,
            fn_constructor_args=(
                str(store.root.absolute()),
                model,
                device,
                engine(),
                str(out),
                digests,
            ),
            concurrency=(1, max(1, int(ray.cluster_resources().get("CPU", 1)))),
            num_cpus=1,
            num_gpus=1 if device == "cuda" else 0,
        )
        for row in work.iter_rows():
            done += int(row["files"])
            unreadable += int(row["unreadable"])
            progress(done, len(names))
    for leftover in out.glob(".*.parquet.*"):  # of workers that died while writing
        leftover.unlink(missing_ok=True)
    return Scored(len(names), unreadable, before)


def _where(device: Device) -> "Literal['cpu', 'cuda']":
    """Return the device of the models. GPUs are used only on request, so that Ray can count
    them."""
    return "cuda" if device == "cuda" else "cpu"


def _digests(store: ModelStore, model: str | None, device: Device) -> dict[str, str]:
    """Return the SHA-256 of each model that may answer."""
    from cifar10.commands.predict import chosen

    name, rule = chosen(store, model, _where(device))
    names = rule.names if rule else (str(name),)
    return {one: store.card(one).sha256 for one in names}


def _part(number: int) -> str:
    return f"part-{number:06d}.parquet"


def _check_plan(out: Path, names: Sequence[str], digests: dict[str, str]) -> None:
    listed = hashlib.sha256("\n".join(names).encode()).hexdigest()
    plan = {"files": len(names), "files_sha256": listed, "chunk": CHUNK, "models": digests}
    path = out / _PLAN_FILE
    if not path.exists():
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            message = f"{out} exists and is not the output of an earlier run; choose another --out"
            raise OtherResultsError(message)
        write_atomic(path, json.dumps(plan))
    elif json.loads(path.read_text()) != plan:
        message = f"{out} has the answers of other files or of another model; choose another --out"
        raise OtherResultsError(message)


def _write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.float64() if name == "confidence" else pa.string() for name in COLUMNS}
    schema = pa.schema(list(types.items()))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.table(columns, schema=schema), temporary)
    temporary.replace(path)
