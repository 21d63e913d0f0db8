"""Trial ``full_disk``: the server's writable folders run out of space.

First, the server's home and temporary folder are on a small file system that is filled while it
serves. A worker is killed, so that a new one has to start there. Then a server starts with almost
no shared memory. File systems are mounted in a mount namespace or in the trial's own folder.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import httpx

from bench.chaos.bystanders import Bystanders
from bench.chaos.kill import judge_beside, kill_beside
from bench.chaos.trial import Trial, TrialRun, TrialSkippedError, Verdict
from bench.serving.process import SERVE
from cifar10.errors import BenchError

_MEGABYTES: Final = 32
_SHARED_MEMORY: Final = "64k"
_ASKED: Final = 20
_BLOCK_BYTES: Final = 1 << 20


async def full_disk(run: TrialRun) -> Verdict:
    """Fill the server's disk and kill a worker; then start a server with no shared memory."""
    figures = await _filled_while_serving(run)
    figures |= await _without_shared_memory(run)
    return Verdict(figures, judge(figures))


async def _filled_while_serving(run: TrialRun) -> dict[str, float]:
    plan = run.plan
    with small_file_system(_MEGABYTES) as folder:
        settings = {"TMPDIR": str(folder), "BENTOML_HOME": str(folder / "bentoml")}
        with run.serve(settings) as server:
            bystanders = Bystanders(run)
            await bystanders.warm_up()
            await bystanders.alone(plan.attack_seconds, plan.seed)
            before = run.worker_ids()
            fill(folder)
            await bystanders.attacked(plan.attack_seconds, plan.seed + 100)
            died_by_itself = len(before - run.worker_ids())
            killed = await kill_beside(bystanders, run)
            metrics = await _status(f"{server.url}/metrics")
            full = shutil.disk_usage(folder).free
            # One of them was killed by the trial.
            died_by_itself = max(died_by_itself, len(before - run.worker_ids()) - 1)
            figures = bystanders.close()
    return {
        **figures,
        **killed,
        "bytes_free": float(full),
        "workers_that_died": float(died_by_itself),
        "metrics_status": float(metrics),
    }


async def _without_shared_memory(run: TrialRun) -> dict[str, float]:
    mount = f'mount -t tmpfs -o size={_SHARED_MEMORY} tmpfs /dev/shm && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", mount, "sh", *SERVE)
    answered = 0
    with contextlib.suppress(BenchError), run.serve(command=command):
        client = run.client()
        for number in range(_ASKED):
            status = await client.send(number)
            run.statuses[status] += 1
            answered += status == 200
        client.close()
    return {
        "asked_without_shared_memory": float(_ASKED),
        "answered_without_shared_memory": float(answered),
    }


def judge(figures: Mapping[str, float]) -> list[str]:
    """Return the broken parts of the promise."""
    broken = judge_beside(figures)
    if figures["workers_that_died"]:
        broken.append(f"{figures['workers_that_died']:.0f} workers died when the disk was full")
    if figures["metrics_status"] not in (200, 503):
        broken.append(f"/metrics answered {figures['metrics_status']:.0f} on a full disk")
    if figures["answered_without_shared_memory"] != figures["asked_without_shared_memory"]:
        broken.append(
            f"{figures['answered_without_shared_memory']:.0f} of "
            f"{figures['asked_without_shared_memory']:.0f} requests were answered by a server "
            "that started with full shared memory"
        )
    return broken


async def _status(url: str) -> int:
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            return (await client.get(url)).status_code
    except httpx.HTTPError:
        return 0


@contextlib.contextmanager
def small_file_system(megabytes: int) -> Iterator[Path]:
    """Yield a folder with its own in-memory file system.

    Raises:
        TrialSkippedError: this account may not mount one.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        message = "mounting a small file system needs root"
        raise TrialSkippedError(message)
    with tempfile.TemporaryDirectory(prefix="bench-disk-") as folder:
        options = f"size={megabytes}m"
        mounted = subprocess.run(  # noqa: S603 - our own arguments
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            message = f"no small file system can be mounted here: {mounted.stderr.strip()}"
            raise TrialSkippedError(message)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False)  # noqa: S603, S607


def fill(folder: Path) -> None:
    """Write until the file system of ``folder`` is full."""
    block = _BLOCK_BYTES
    with (folder / "filler").open("wb", buffering=0) as file:
        while block:
            try:
                file.write(b"\0" * block)
            except OSError:
                block //= 2


TRIAL: Final = Trial(
    "full_disk",
    "No space left on the server's disk and in shared memory",
    "requests are answered as before, no worker dies, a killed one is replaced, and a server "
    "starts without shared memory",
    full_disk,
    starts_server=True,
)
