"""Section on what running a model takes besides time: memory, start-up and energy."""

from collections.abc import Iterator
from typing import Final

from bench.report.formats import NOTHING, count, millions, significant
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.selection import ModelResult


def resources(shown: Shown) -> Iterator[Block]:
    """Parameters by kind, activation memory, resident memory, start-up, energy."""
    weighed = [model for model in shown.subjects if model.resources]
    if not weighed:
        yield "Not measured here: `cifar10 bench resources`."
        return
    columns: list[Column[ModelResult]] = [
        words("Model", shown.name),
        Column("Parameters, trainable + not", _parameters),
        Column("Largest node's activations, KiB", lambda m: _kib(m, "activation_bytes_largest")),
        Column("All activations, KiB", lambda model: _kib(model, "activation_bytes_total")),
        Column("Peak memory, MB", lambda model: millions(_figure(model, "peak_bytes"))),
        Column("Memory of the model, MB", lambda model: millions(_figure(model, "model_bytes"))),
        Column("Loading, ms", lambda model: significant(_figure(model, "loading_ms"))),
        Column("Start to first result, s", lambda m: significant(_figure(m, "ready_seconds"))),
        Column("Images per joule", _joules),
    ]
    yield Table(columns, weighed, "resources")
    yield (
        "Activations of one image, from ONNX Runtime's profile of the optimised graph: inputs and "
        "outputs of the largest node (a lower bound of what is live at once), and outputs of all "
        "nodes. Memory and start-up are those of a fresh process with the predictor alone, median "
        "of three; the peak includes the libraries and a batch of 32. Images per joule: whole "
        "processor package (RAPL) or GPU (NVML), idle power included."
    )
    if not any(model.resources and model.resources.energy_source for model in weighed):
        yield (
            "Energy is not available on this machine, which has neither RAPL "
            "(`/sys/class/powercap`) nor NVML."
        )


def _parameters(model: ModelResult) -> str:
    if model.cost is None:
        return NOTHING
    trainable, total = model.cost.parameters_trainable, model.cost.parameters_total
    return f"{count(trainable)} + {count(total - trainable)}"


def _figure(model: ModelResult, name: str) -> float | None:
    """Return a figure of the model's resources; None where it was not measured."""
    found: float | None = getattr(model.resources, name, None)
    return found


def _kib(model: ModelResult, name: str) -> str:
    value = _figure(model, name)
    return NOTHING if value is None else significant(value / 1024)


def _joules(model: ModelResult) -> str:
    rate = model.resources.images_per_joule if model.resources else None
    if rate is None or model.resources is None:
        return "not available"
    return f"{significant(rate)} ({model.resources.energy_source})"


SECTIONS: Final = (
    Section(50, "Memory, start-up and energy", "what a model takes besides time", resources),
)
