"""The figures in the page on the reference study are those that are measured now."""

import json
import re

from cifar10.environment import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "the-study.md"
FIGURE = re.compile(r"`([a-z0-9_]+)`[^|\n]*\| *(\d+\.\d\d) *\|")
"""A model in one cell and its test accuracy, in per cent, in the next."""


def test_accuracies_on_the_page_are_the_measured_ones() -> None:
    table = json.loads((PROJECT_ROOT / "results" / "efficiency.json").read_text())
    measured = {
        model["model"]: f"{model['accuracy'] * 100:.2f}"
        for machine in reversed(table["machines"])
        for model in machine["models"]
        if model["accuracy"] is not None
    }
    told = FIGURE.findall(PAGE.read_text())
    assert len(told) >= 12
    assert told == [(model, measured[model]) for model, _ in told]
