"""Sections on the measurement itself: what was measured of which model, how, and on what."""

from collections.abc import Iterator
from typing import Final

from bench.report.formats import NOTHING
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.service import RESPONSE_TIME_STEP_US
from bench.rows.kinds.session import PlanMeasurement


def what_was_measured(shown: Shown) -> Iterator[Block]:
    """Each model's part in the newest session, and the rule by which it got it."""
    planned = {model.model: model.plan for model in shown.models if model.plan is not None}
    yield from dict.fromkeys(part.rule for part in planned.values())
    columns: list[Column[tuple[str, PlanMeasurement]]] = [
        words("Model", lambda one: one[0]),
        words("Part", lambda one: one[1].role),
        words("Why", lambda one: one[1].reason),
        words("Not measured", lambda one: ", ".join(one[1].left_out) or "nothing"),
    ]
    if planned:
        yield Table(columns, list(planned.items()))


def machine_and_versions(shown: Shown) -> Iterator[Block]:
    """What ran, and on what."""
    machine, last = shown.results.machine, shown.results.rows[-1]
    what: list[Column[tuple[str, str]]] = [
        words("What", lambda one: one[0]),
        words("Is", lambda one: one[1]),
    ]
    facts = {
        "Processor": machine.cpu,
        "Cores usable / physical": f"{machine.logical_cores} / {machine.physical_cores}",
        "Memory": f"{machine.memory_bytes / 2**30:.1f} GiB",
        "GPU": ", ".join(machine.gpus) or "none",
        "GPU driver": machine.gpu_driver or NOTHING,
        "System": f"{machine.operating_system}, kernel {machine.kernel}, {machine.architecture}",
        "Virtualization": machine.virtualization or "no sign of any",
        "Frequency governor": machine.governor or "not readable",
        "Identity of the hardware": f"`{machine.identity}`",
        **last.versions,
    }
    yield Table(what, list(facts.items()))
    yield f"Newest row: {last.created[:10]}. The models measured:"
    digests = dict.fromkeys(
        (model.model, f"`{model.digest[:16]}`" if model.digest else NOTHING)
        for model in shown.models
    )
    columns: list[Column[tuple[str, str]]] = [
        words("Model", lambda one: one[0]),
        words("SHA-256 of model.onnx", lambda one: one[1]),
    ]
    yield Table(columns, list(digests))


_METHOD: Final = f"""\
- **Accuracy**: every test image once through the exported file, in process. The interval is
  Wilson's, 95 %: it holds for other images of the same kind. It says nothing about training the
  model again with another seed.
- **Latency and throughput**: in process, one caller, all models in interleaved rounds so that what
  slows the machine slows them all. A warm-up before the first round and at the start of every
  block; garbage collection off in a block. A call's time is pixels in, probabilities out.
  Throughput is measured over blocks of back-to-back calls. The median's interval is a percentile
  bootstrap, seeded; it takes successive calls for independent, which they are not quite.
- **HTTP**: Locust (FastHttpUser) in a process of its own, closed loop. Percentiles are exact to
  {RESPONSE_TIME_STEP_US} µs, from every request; those of the warm-up are left out. A closed loop
  hides queueing (coordinated omission): clients that come at their own rate wait longer. The
  generator runs on the same machine, so with few cores it takes some from the server. The CPU
  time per request is over the server's whole process tree and is the steadier figure.
- **Gap**: train minus test accuracy of the kept weights, from the model's card.
- **MACs**: counted by the exporter for one image.
- Accuracies on different variants of CIFAR-10 (the originals, JPEG copies) are not comparable.
"""

SECTIONS: Final = (
    Section(300, "What was measured", what_was_measured),
    Section(310, "Method and limits", lambda shown: [_METHOD]),
    Section(320, "Machine and versions", machine_and_versions),
)
