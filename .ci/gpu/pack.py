"""Download what a GPU machine without a network needs, and split it into parts.

The wheels are those of ``constraints.txt``, for that machine's Python. What it has already (JAX,
NumPy) is left out.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRA = ("h5py", "keras", "namex", "optree", "pytest")
"""Wanted beside the project's own requirements and those of its extra ``bench``: training with
Keras on JAX, and the tests."""
THERE = ("numpy-", "ml_dtypes-")
"""The machine's own, as JAX needs them."""
PLATFORMS = (
    "manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27", "manylinux_2_26",
    "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux2010", "manylinux1",
)  # fmt: skip


def main() -> None:
    """Make ``.gpu/part-NN/piece`` and, in each part, the digest of the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / ".gpu", help="(default: .gpu)")
    parser.add_argument("--python", default="3.12", help="of that machine (default: 3.12)")
    parser.add_argument("--mib", type=int, help="of a part, at most (default: what fits)")
    parser.add_argument("--limit", type=int, default=64,
                        help="of checkout and part together (default: 64)")  # fmt: skip
    parser.add_argument("--with", dest="folders", action="append", default=[], type=Path,
                        metavar="FOLDER", help="a folder of data to take along")  # fmt: skip
    options = parser.parse_args()
    checkout = _checkout_mib()
    most = int(options.limit - checkout)
    options.mib = options.mib or most
    if options.mib > most:
        parser.error(
            f"the checkout is {checkout:.1f} MiB, so a part can be {most} MiB: --mib {most}"
        )
    shutil.rmtree(options.output, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch) / "wheels"
        _download(wheels, options.python)
        archive = Path(scratch) / "everything.tar"
        with tarfile.open(archive, "w") as tar:
            for wheel in sorted(wheels.iterdir()):
                if not wheel.name.startswith(THERE):
                    tar.add(wheel, f"wheels/{wheel.name}")
            for folder in options.folders:
                tar.add(folder, f"data/{folder.name}")
        count = _split(archive, options.output, options.mib << 20)
    size = sum(path.stat().st_size for path in options.output.rglob("piece")) / 2**20
    print(f"{count} parts, {size:.0f} MiB, in {options.output}")  # noqa: T201 - a script


def _checkout_mib() -> float:
    """The size of the files that travel with every part: tracked ones, and new ones not ignored."""
    command = [
        "git",
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def _download(wheels: Path, python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["bench"], *EXTRA]
    platforms = [part for name in PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
        "--implementation", "cp", "--python-version", python, *platforms,
        "--constraint", str(ROOT / "constraints.txt"), "--dest", str(wheels), *wanted,
    ]  # fmt: skip
    subprocess.run(command, check=True)  # noqa: S603 - our own command


def _split(archive: Path, output: Path, size: int) -> int:
    with archive.open("rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
        whole.seek(0)
        count = -(-os.fstat(whole.fileno()).st_size // size)
        for number in range(count):
            part = output / f"part-{number:02d}"
            part.mkdir(parents=True)
            (part / "piece").write_bytes(whole.read(size))
            (part / "whole").write_text(f"{count} {digest}\n")
    return count


if __name__ == "__main__":
    main()
