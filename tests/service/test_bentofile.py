"""The Bento installs what the project does."""

import tomllib

import yaml

from cifar10.environment import PROJECT_ROOT


def test_the_bento_has_the_base_dependencies_of_the_project():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
    bento = yaml.safe_load((PROJECT_ROOT / "bentofile.yaml").read_text())
    assert bento["python"]["packages"] == project["project"]["dependencies"]
