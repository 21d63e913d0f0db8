"""Tests that an import's output to standard error is hidden unless the import fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from cifar10.environment import PROJECT_ROOT


@pytest.mark.parametrize("fails", [False, True])
def test_output_of_an_import_is_shown_only_if_it_fails(tmp_path: Path, *, fails: bool) -> None:
    module = tmp_path / "noisy.py"
    module.write_text(
        "import os, sys\nos.write(2, b'from C\\n')\nprint('from Python', file=sys.stderr)\n"
        + ("raise ImportError('no such thing')\n" if fails else "")
    )
    program = (
        "import logging, sys\nfrom cifar10.quiet import import_quietly\n"
        "import_quietly('noisy')\nprint('after it', file=sys.stderr)\n"
        "logging.getLogger('tensorflow').warning('traced again')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT_ROOT,
        env={"PYTHONPATH": f"{PROJECT_ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if fails:
        assert done.returncode == 1
        assert done.stderr.startswith("from C\nfrom Python\nTraceback")
        assert "ImportError: no such thing" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "after it\n")
