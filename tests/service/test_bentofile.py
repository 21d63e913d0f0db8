"""The Bento installs what the project does, at the versions that were tested."""

import re
import tomllib

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
    """(name, versions, marker)"""
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
def test_what_is_overridden_has_an_upper_bound(name: str) -> None:
    (versions,) = [found for one, found, _ in map(split, PROJECT["dependencies"]) if one == name]
    assert re.search(r"<\d", versions), versions
