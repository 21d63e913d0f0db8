"""Section on engines: the same files in another engine than ONNX Runtime, on the CPU."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from bench.report.formats import NOTHING, count, significant
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.selection import ModelResult
from cifar10.predictor import CPU_PROVIDER

_LISTED: Final = 20

_ABOUT: Final = (
    "The same files in OpenVINO (`CIFAR10_ENGINE=openvino`) and in ONNX Runtime, the default, on "
    "the same cores. Times of one image (p50; the mean with an early exit) and of a batch are ONNX "
    "Runtime's divided by OpenVINO's: above 1 OpenVINO is faster. A model whose golden answers "
    "differ by more than its card allows is refused, so it has no line here."
)

_Line = tuple[ModelResult, ModelResult]
"""A model in OpenVINO and in ONNX Runtime."""


def engines(shown: Shown) -> Iterator[Block]:
    """One line for each model that was measured in both engines."""
    ours = {one.model: one for one in shown.subjects if one.provider == CPU_PROVIDER}
    lines = [(one, ours[one.model]) for one in shown.in_openvino if one.model in ours]
    if not lines:
        return
    columns: list[Column[_Line]] = [
        words("Model", lambda line: f"`{line[0].model}`"),
        Column("Test images", lambda line: _images(line)[0]),
        Column("Other class", lambda line: _images(line)[1]),
        words("Images with another class", lambda line: _images(line)[2]),
        Column("Times faster, one image", _faster_alone),
        Column("Times faster, batch", _faster_in_batches),
    ]
    yield Table(columns, lines, "engines")
    yield _ABOUT


def _images(line: _Line) -> tuple[str, str, str]:
    """Return the numbers of test images and of those with another class, and which those are."""
    one, other = (result.accuracy.classes if result.accuracy else None for result in line)
    if one is None or other is None or one.size != other.size or line[0].dataset != line[1].dataset:
        return NOTHING, NOTHING, NOTHING
    differing = np.flatnonzero(one != other)
    listed = ", ".join(map(str, differing[:_LISTED])) or "none"
    more = "" if len(differing) <= _LISTED else f", and {len(differing) - _LISTED} more"
    return count(one.size), count(len(differing)), listed + more


def _faster_alone(line: _Line) -> str:
    theirs, ours = (result.typical_latency_ms for result in line)
    return significant(ours / theirs if ours is not None and theirs else None)


def _faster_in_batches(line: _Line) -> str:
    theirs, ours = line
    sizes = sorted(set(theirs.throughput) & set(ours.throughput))
    rates = [result.images_per_second(sizes[-1]) if sizes else None for result in line]
    if rates[0] is None or not rates[1]:
        return NOTHING
    return f"{significant(rates[0] / rates[1])} ({sizes[-1]})"


SECTIONS: Final = (
    Section(53, "Engines", "OpenVINO against ONNX Runtime, the same files", engines),
)
