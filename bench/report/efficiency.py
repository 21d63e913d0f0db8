"""The efficiency table as Markdown, CSV and records."""

import csv
import io
from collections.abc import Sequence
from typing import Any, Final

from bench.report.columns import COLUMNS, entries
from bench.report.formats import markdown_table
from bench.rows.selection import ModelResult
from cifar10.predictor import CUDA_PROVIDER

LEGEND: Final = (
    "Accuracy: top-1 through ONNX Runtime, with its Wilson interval. Floor reached: the accuracy "
    "from which MLPerf Tiny (85 %) or DAWNBench (94 %) look at speed at all. Seeds: trainings of "
    "the recipe measured here, with their mean ± standard deviation where there are several. Gap: "
    "train minus test. MACs: for one image; with an early exit, for one that does not take it. "
    "Latency: one image, in process; models are compared by p50, one with an early exit, which "
    "does more for some images than for others, by its mean. Throughput: in process, the best "
    "batch size. HTTP: closed loop, PNG in, JSON out; * the load generator was the limit. Accuracy "
    "per M parameters is the reference study's measure, percentage points per million parameters; "
    "it favours the smallest model without bound (ten parameters that always answer the same score "
    "a million), so nothing is ranked by it. Pareto: no other model here is both more accurate and "
    "cheaper in that respect; the floors say whether it is accurate enough to matter."
)

_NO_GPU: Final = (
    "No GPU rows: none of these models was executed by CUDA here. On a machine with an NVIDIA GPU "
    "they are filled by `cifar10 bench all --device cuda`."
)


def efficiency_table(results: Sequence[ModelResult]) -> str:
    """One line per model and provider, in the order given, as Markdown."""
    rows = [[column.text(entry) for column in COLUMNS] for entry in entries(results)]
    header = [column.title for column in COLUMNS]
    return markdown_table(header, rows, [column.align for column in COLUMNS])


def efficiency_csv(results: Sequence[ModelResult]) -> str:
    """The same lines as CSV (RFC 4180, but with plain line feeds): exact values, units in the
    column names, nothing where there is no figure."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([name for column in COLUMNS for name, _ in column.exact])
    for entry in entries(results):
        writer.writerow([value(entry) for column in COLUMNS for _, value in column.exact])
    return buffer.getvalue()


def efficiency_records(results: Sequence[ModelResult]) -> list[dict[str, Any]]:
    """The same lines as records: the CSV's names and exact values, but lists for the two columns
    that hold several things, and whether any of it comes from a quick run."""
    return [
        {
            **{name: value(entry) for column in COLUMNS for name, value in column.exact},
            "pareto": entry.on_fronts,
            "notes": entry.notes,
            "quick": entry.result.quick,
        }
        for entry in entries(results)
    ]


def gpu_line(results: Sequence[ModelResult]) -> str:
    """What to do about missing GPU rows; empty where there are some."""
    return "" if any(result.provider == CUDA_PROVIDER for result in results) else _NO_GPU
