"""The import contracts, as a newcomer's machine would feel them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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
    names = {path.stem for path in ROOT.glob("*/**/*.py") if ".venv" not in path.parts}
    assert not names & {"utils", "util", "common", "helpers", "helper", "misc"}
