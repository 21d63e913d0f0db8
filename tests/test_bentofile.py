"""Tests that the Bento installs the project's packages at the tested versions, and that make
explains where nothing can be installed."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from cifar10.environment import PROJECT_ROOT

PROJECT = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
BENTO = yaml.safe_load((PROJECT_ROOT / "bentofile.yaml").read_text())
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", re.MULTILINE)
PINNED = {
    name.lower().replace("_", "-"): version
    for name, version in PIN.findall((PROJECT_ROOT / "constraints.txt").read_text())
}


def split(requirement: str) -> tuple[str, str, str]:
    """Split a requirement into (name, versions, marker)."""
    what, _, marker = requirement.partition(";")
    name = re.match(r"[A-Za-z0-9_.-]+", what).group()
    return name, what.removeprefix(name).strip(), marker.strip()


def test_the_bento_has_the_base_dependencies_of_the_project() -> None:
    ours = [split(one) for one in PROJECT["dependencies"]]
    theirs = [split(one) for one in BENTO["python"]["packages"]]
    assert [(name, marker) for name, _, marker in theirs] == [
        (name, marker) for name, _, marker in ours
    ]


def test_the_bento_has_the_versions_of_the_constraints() -> None:
    for name, version, _ in map(split, BENTO["python"]["packages"]):
        assert version == f"=={PINNED[name.lower().replace('_', '-')]}", name


@pytest.mark.parametrize("name", ["bentoml", "uvicorn"])
def test_packages_whose_internals_are_overridden_have_an_upper_bound(name: str) -> None:
    (versions,) = [found for one, found, _ in map(split, PROJECT["dependencies"]) if one == name]
    assert re.search(r"<\d", versions), versions


def test_the_bento_and_make_report_no_usage():
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    expected = {"BENTOML_DO_NOT_TRACK": "True", "ORT_DISABLE_TELEMETRY": "1"}
    assert {one["name"]: one["value"] for one in BENTO["envs"]} == expected
    for name, value in expected.items():
        assert f"export {name} := {value}\n" in makefile


def python_that_says(folder: Path, version: str, machine: str) -> Path:
    """Create a stand-in for another machine's Python that only answers the Makefile's checks."""
    answers = folder / "answers.py"
    answers.write_text(
        "import platform, sys\n"
        f"sys.version_info = {version}\n"
        f"platform.system, platform.machine = (lambda: {machine.split()[0]!r}), "
        f"(lambda: {machine.split()[1]!r})\n"
        "if sys.argv[1] == '-c':\n    exec(sys.argv[2])\n"
    )
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {answers} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("version", "machine", "says"),
    [
        ("(3, 14, 0)", "Linux x86_64", "Python 3.11, 3.12 or 3.13 is needed"),
        ("(3, 10, 9)", "Linux x86_64", "Python 3.11, 3.12 or 3.13 is needed"),
        ("(3, 12, 1)", "Darwin x86_64", "Intel processor are not supported"),
        ("(3, 13, 1)", "Darwin arm64", None),
        ("(3, 11, 0)", "Linux x86_64", None),
    ],
)
def test_make_explains_where_it_cannot_install(tmp_path, version, machine, says):
    python = python_that_says(tmp_path, version, machine)
    target = tmp_path / "venv"
    done = subprocess.run(
        ["make", f"PYTHON={python}", f"VENV={target}", f"{target}/bin/python"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (says is None), done.stdout + done.stderr
    assert (says or "") in done.stdout
