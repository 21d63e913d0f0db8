"""The pages of docs/ name the routes there are and the figures that are measured now."""

import json
import re

from cifar10.environment import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "the-study.md"
FIGURE = re.compile(r"`([a-z0-9_]+)`[^|\n]*\| *(\d+\.\d\d) *\|")
"""A model in one cell and its test accuracy, in per cent, in the next."""


def test_accuracies_on_the_page_are_the_measured_ones() -> None:
    """The page is about the models measured on the official images."""
    table = json.loads((PROJECT_ROOT / "results" / "efficiency.json").read_text())
    measured = {
        model["model"]: f"{model['accuracy'] * 100:.2f}"
        for machine in reversed(table["machines"])
        for model in machine["models"]
        if model["dataset"] == "cifar10" and model["accuracy"] is not None
    }
    told = FIGURE.findall(PAGE.read_text())
    assert len(told) >= 12
    assert told == [(model, measured[model]) for model, _ in told]


def test_shares_of_photographs_on_the_page_are_the_measured_ones() -> None:
    page = (PROJECT_ROOT / "docs" / "photographs.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    table = json.loads((PROJECT_ROOT / "results" / "efficiency.json").read_text())
    names = ("accuracy", "elsewhere_accuracy", "others_sure")
    measured = {
        model["model"]: [model[name] for name in names]
        for model in table["machines"][0]["models"]
        if model.get("elsewhere_dataset") == "photographs"
    }
    assert len(told) >= 6
    assert told == [
        (name, f"{right:.2%}"[:-1], f"{photographs:.1%}"[:-1], f"{others:.1%}"[:-1])
        for name, *_ in told
        for right, photographs, others in [measured[name]]
    ]


def test_routes_on_the_page_are_those_of_the_description() -> None:
    page = (PROJECT_ROOT / "docs" / "http-api.md").read_text()
    table = re.search(r"^\| route .*?\n\n", page, re.DOTALL | re.MULTILINE)
    assert table is not None
    told = set(re.findall(r"`(?:GET |POST )?(/[^`]*)`", table[0])) - {"/v2/..."}
    described = json.loads((PROJECT_ROOT / "service/static/openapi.json").read_text())["paths"]
    assert len(told) >= 10
    assert told <= set(described)
