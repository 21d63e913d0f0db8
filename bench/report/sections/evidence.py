"""Section on what running a model takes besides time: memory, start-up and energy."""

from collections.abc import Iterator
from typing import Final

from bench.report.formats import NOTHING, count, millions, significant
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.selection import ModelResult


def resources(shown: Shown) -> Iterator[Block]:
    """Parameters by kind, activation memory, resident memory, start-up, energy."""
    weighed = [model for model in shown.models if model.resources or model.cost]
    if not weighed:
        return
    yield (
        "Activations: one image, from ONNX Runtime's profile of the optimised graph: the inputs "
        "and outputs of the node that has most (a lower bound of what is live at once), and the "
        "outputs of all nodes. Memory and start-up: a fresh process with the predictor alone, "
        "median of three; peak resident memory with libraries, after a batch of 32. Images per "
        "joule: of the whole processor package (RAPL) or GPU (NVML), idle power included."
    )
    columns: list[Column[ModelResult]] = [
        words("Model", shown.name),
        Column("Parameters, trainable + not", _parameters),
        Column("MACs, M", lambda model: millions(model.cost_in("MACs"))),
        Column("File, MB", lambda model: millions(model.cost_in("size"))),
        Column("Largest node's activations, KiB", lambda m: _kib(m, "activation_bytes_largest")),
        Column("All activations, KiB", lambda model: _kib(model, "activation_bytes_total")),
        Column("Peak memory, MB", lambda model: millions(_figure(model, "peak_bytes"))),
        Column("Of it the model, MB", lambda model: millions(_figure(model, "model_bytes"))),
        Column("Loading, ms", lambda model: significant(_figure(model, "loading_ms"))),
        Column("Start to first answer, s", lambda m: significant(_figure(m, "ready_seconds"))),
        Column("Images per joule", _joules),
    ]  # fmt: skip
    yield Table(columns, weighed)
    if not any(model.resources for model in shown.models):
        yield "Memory and start-up are not measured here. `cifar10 bench resources` does it."
    elif not any(model.resources and model.resources.energy_source for model in shown.models):
        yield (
            "Energy: not available on this machine; it shows neither RAPL "
            "(`/sys/class/powercap`) nor NVML."
        )


def _parameters(model: ModelResult) -> str:
    if model.cost is None:
        return NOTHING
    trainable, total = model.cost.parameters_trainable, model.cost.parameters_total
    return f"{count(trainable)} + {count(total - trainable)}"


def _figure(model: ModelResult, name: str) -> float | None:
    """Figure of the model's resources; None where it was not measured."""
    found: float | None = getattr(model.resources, name, None)
    return found


def _kib(model: ModelResult, name: str) -> str:
    value = _figure(model, name)
    return NOTHING if value is None else significant(value / 1024)


def _joules(model: ModelResult) -> str:
    if model.resources is None:
        return NOTHING
    rate = model.resources.images_per_joule
    if rate is None:
        return "not available"
    return f"{significant(rate)} ({model.resources.energy_source})"


SECTIONS: Final = (Section(110, "Memory, start-up and energy", resources, "memory"),)
