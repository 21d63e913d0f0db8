"""First load generator: Locust in its own process, and the raw times that it writes.

Locust needs its own process because it patches sockets on import; its CPU time is also measured
that way. The second generator, on asyncio in this process, is :mod:`bench.load.drive`.
"""

import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.load.arrivals import Shape
from bench.load.bodies import encode_png
from bench.load.drive import Driven
from bench.load.sent import Sent
from bench.measure.progress import Progress, silent
from cifar10.errors import BenchError

LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")
_STOP_TIMEOUT_SECONDS: Final = 20.0
_SPAWN_RATE: Final = 10_000
"""Users started per second: all at once, because Locust counts its ramp as part of the run time."""
_WORKERS_SECONDS: Final = 120.0
"""Time for the expected workers on other hosts to connect."""
_START_ALLOWANCE_SECONDS: Final = 60.0
"""Time for Locust to import, start and stop, in addition to its run time."""


@dataclass(frozen=True)
class LoadPlan:
    """Users, rate and duration of a load run."""

    users: int = 16
    seconds: float = 20.0
    """Measured time."""
    warm_up_seconds: float = 3.0
    """Time before that; its requests are counted but discarded."""
    processes: int = 1
    """Number of Locust processes, each with its share of the users."""
    workers_expected: int = 0
    """Number of Locust processes on other hosts that send in place of this one's; 0: none."""
    rate_per_s: float | None = None
    """Requests per second of all users together; None: as fast as possible."""
    shape: Shape = "poisson"
    """Shape of the arrivals, if there is a rate."""
    html: Path | None = None
    """File for Locust's own report."""


def run_locust(
    url: str,
    images: NDArray[np.uint8],
    plan: LoadPlan,
    *,
    route: str = "/classify",
    check: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> tuple[Driven, bool]:
    """Run Locust against ``url`` until the plan ends, or Ctrl-C.

    Args:
        url: URL of the server, without a final slash.
        images: uint8 (N, height, width, 3), RGB, posted as PNG.
        route: path and query to post to.
        check: called every half second; an exception from it (the server died) ends the run.
        progress: receives the seconds that have passed.

    Returns:
        Every request, including the warm-up; the CPU share of each Locust process; and whether
        Ctrl-C ended the run early.

    Raises:
        BenchError: Locust could not run or left no samples.
    """
    with tempfile.TemporaryDirectory(prefix="bench-load-") as name:
        folder = Path(name)
        _pack(images, folder / "images.zip")
        samples = folder / "samples.npz"
        log = folder / "locust.txt"
        command = [
            *(sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE)),
            *("--headless", "--only-summary", "--host", url, "--route", route),
            *("--users", str(plan.users), "--spawn-rate", str(_SPAWN_RATE)),
            *("--stop-timeout", f"{_STOP_TIMEOUT_SECONDS / 2:.0f}"),  # await open requests
            *("--run-time", f"{plan.warm_up_seconds + plan.seconds:.0f}s"),
            *("--images", str(folder / "images.zip"), "--samples", str(samples)),
        ]
        if plan.processes > 1:
            command += ["--processes", str(plan.processes)]
        if plan.workers_expected:
            command += ["--master", "--expect-workers", str(plan.workers_expected)]
            command += ["--expect-workers-max-wait", f"{_WORKERS_SECONDS:.0f}"]
        if plan.rate_per_s is not None:
            command += ["--rate", f"{plan.rate_per_s:.6g}", "--shape", plan.shape]
        if plan.html is not None:
            command += ["--html", str(plan.html.resolve())]
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            interrupted = False
            try:
                _wait(process, plan, check, progress)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                _stop(process)
        files = sorted(folder.glob("samples*.npz"))
        if not files:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
            message = f"Locust (exit code {process.returncode}) left no samples:\n" + "\n".join(
                f"  | {line}" for line in last
            )
            if interrupted:
                raise KeyboardInterrupt
            raise BenchError(message)
        return _read(files), interrupted


def _wait(
    process: subprocess.Popen[bytes],
    plan: LoadPlan,
    check: Callable[[], None],
    progress: Progress,
) -> None:
    total = plan.warm_up_seconds + plan.seconds
    allowance = _START_ALLOWANCE_SECONDS + (_WORKERS_SECONDS if plan.workers_expected else 0)
    start = time.monotonic()
    while True:
        passed = time.monotonic() - start
        progress(f"load, {plan.users} users", min(int(passed), int(total)), int(total))
        if passed > total + allowance:
            message = f"Locust did not end {allowance:g} s after its run time"
            raise BenchError(message)
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            check()
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask Locust to end, so that it writes its samples; kill it if it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(paths: Sequence[Path]) -> Driven:
    """Read one file per Locust process; the master of several sends nothing itself."""
    found = []
    for path in paths:
        with np.load(path, allow_pickle=False) as raw:
            found.append({name: raw[name] for name in raw.files})
    start_s, response_ms, status = (
        np.concatenate([part[name] for part in found])
        for name in ("start_s", "response_ms", "status")
    )
    start_s = start_s - start_s.min(initial=np.inf)
    done_s = start_s + response_ms / 1e3
    order = np.argsort(done_s, kind="stable")
    sent = Sent(start_s[order], start_s[order], done_s[order], status[order])
    cpu_s = sum(float(part["cpu_s"]) for part in found) / max(1, len(found) - 1)
    wall_s = max(float(part["wall_s"]) for part in found)
    return Driven(sent, cpu_s / wall_s if wall_s else 0.0)


def run_worker(master: str, images: NDArray[np.uint8]) -> int:
    """Send requests for the master on another host until it ends. Return Locust's exit code.

    Args:
        master: host name or address of the master.
        images: uint8 (N, H, W, 3), RGB, posted as PNG.
    """
    with tempfile.TemporaryDirectory(prefix="bench-load-") as name:
        path = Path(name) / "images.zip"
        _pack(images, path)
        command = [
            *(sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE)),
            *("--worker", "--master-host", master, "--images", str(path)),
        ]
        return subprocess.run(command, cwd=name).returncode  # noqa: S603 - our own command


def _pack(images: NDArray[np.uint8], path: Path) -> None:
    """Write the images as PNG files into a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for index, image in enumerate(images):
            archive.writestr(f"{index:05d}.png", encode_png(image))
