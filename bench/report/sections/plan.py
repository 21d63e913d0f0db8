"""The report on what was measured of which model, and why not more."""

from collections.abc import Mapping, Sequence
from typing import Final

from bench.report.formats import markdown_table
from bench.rows.files import MachineResults
from bench.rows.selection import ModelResult

_ALL: Final = "nothing"


def what_was_measured(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Each model's part in the newest session, and the rule by which it got it."""
    planned = {model.model: model.plan for model in models if model.plan is not None}
    if not planned:
        return ""
    rows = [
        [name, part.role, part.reason, ", ".join(part.left_out) or _ALL]
        for name, part in planned.items()
    ]
    rules = dict.fromkeys(part.rule for part in planned.values())
    table = markdown_table(["Model", "Part", "Why", "Not measured"], rows, ["left"] * 4)
    return "\n\n".join([*rules, table])


def missing(models: Sequence[ModelResult], what: str) -> str:
    """One line that names the models of which ``what`` was left out; empty where there is none."""
    names = [
        f"`{model.model}`"
        for model in models
        if model.plan is not None and what in model.plan.left_out
    ]
    if not names:
        return ""
    return f"Not measured, by the rule under *What was measured*: {', '.join(names)}."
