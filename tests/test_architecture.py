"""Tests of the architecture: import contracts, sizes of modules and folders."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    path
    for package in ("bench", "cifar10", "export", "service", "tests", "training")
    for path in (ROOT / package).rglob("*.py")
]
FRAMEWORKS = ("tensorflow", "keras", "tf2onnx", "torch", "jax")


def test_import_contracts_hold():
    command = [Path(sys.prefix) / "bin" / "lint-imports"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["service.app", "bench.commands.all", "cifar10.predictor"])
def test_serving_and_measuring_load_no_training_framework(module):
    program = f"import sys, {module}; print([m for m in {FRAMEWORKS} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_dumping_grounds():
    banned = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not banned & {path.stem for path in MODULES}


def test_no_module_is_longer_than_400_lines():
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_folder_has_more_than_30_modules():
    modules = Counter(path.parent for path in MODULES)
    assert {folder: count for folder, count in modules.items() if count > 30} == {}
