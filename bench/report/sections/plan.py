"""Sections on the measurement itself: its plan, its method, the machine and the glossary."""

from collections.abc import Iterator
from typing import Final

from bench.report.formats import NOTHING
from bench.report.shown import Section, Shown
from bench.report.tables import Block, Column, Table, words
from bench.rows.kinds.service import RESPONSE_TIME_STEP_US
from bench.rows.kinds.session import PlanMeasurement


def what_was_measured(shown: Shown) -> Iterator[Block]:
    """Yield each model's role in the newest session, and the rule that assigned it."""
    planned = {model.model: model.plan for model in shown.models if model.plan is not None}
    yield from dict.fromkeys(plan.rule for plan in planned.values())
    columns: list[Column[tuple[str, PlanMeasurement]]] = [
        words("Model", lambda one: one[0]),
        words("Role", lambda one: one[1].role),
        words("Why", lambda one: one[1].reason),
        words("Not measured", lambda one: ", ".join(one[1].left_out) or "nothing"),
    ]
    if planned:
        yield Table(columns, list(planned.items()), "plan")


def machine_and_versions(shown: Shown) -> Iterator[Block]:
    """Hardware, versions of software, and digests of the models."""
    machine, last = shown.results.machine, shown.results.rows[-1]
    what: list[Column[tuple[str, str]]] = [
        words("Item", lambda one: one[0]),
        words("Value", lambda one: one[1]),
    ]
    facts = {
        "Processor": machine.cpu,
        "Cores usable / physical": f"{machine.logical_cores} / {machine.physical_cores}",
        "Memory": f"{machine.memory_bytes / 2**30:.1f} GiB",
        "GPU": ", ".join(machine.gpus) or "none",
        "GPU driver": machine.gpu_driver or NOTHING,
        "System": f"{machine.operating_system}, kernel {machine.kernel}, {machine.architecture}",
        "Virtualization": machine.virtualization or "none detected",
        "Frequency governor": machine.governor or "not readable",
        "Identity of the hardware": f"`{machine.identity}`",
        **last.versions,
    }
    yield Table(what, list(facts.items()))
    yield f"Newest row: {last.created[:10]}. Released models:"
    digests = dict.fromkeys(
        (model.model, f"`{model.digest[:16]}`" if model.digest else NOTHING)
        for model in shown.subjects
    )
    columns: list[Column[tuple[str, str]]] = [
        words("Model", lambda one: one[0]),
        words("SHA-256 of model.onnx", lambda one: one[1]),
    ]
    yield Table(columns, list(digests))


_METHOD: Final = f"""\
- **Accuracy**: every test image once through the exported file, in process. The 95 % interval is
  Wilson's: it holds for other images of the same kind, not for training again with another seed.
- **Latency and throughput**: in process, one caller, all models in interleaved rounds, so that a
  slow moment of the machine affects them all. Each block starts with a warm-up; garbage collection
  is off in a block. A call is pixels in, probabilities out. Throughput is over blocks of
  back-to-back calls. The median's interval is a seeded percentile bootstrap that treats successive
  calls as independent, which is not quite true.
- **HTTP**: Locust (FastHttpUser) in a process of its own, closed loop, on the server's cores.
  Percentiles are exact to {RESPONSE_TIME_STEP_US} µs, from every request after the warm-up. A
  closed loop hides queueing (coordinated omission): clients that arrive at their own rate wait
  longer. CPU time per request covers the server's whole process tree and is the steadier figure.
- Accuracies on different data sets, or on different variants of CIFAR-10 (originals, JPEG copies),
  are not comparable.
"""

_GLOSSARY: Final = """\
- **Accuracy**: share of the test images whose most probable class is the right one (top-1).
- **95 % interval**: range that contains the true accuracy in 95 of 100 such measurements.
- **Latency**: time of one image in process, on one core: the median (p50), or the mean for a model
  with an early exit, because the median hides the images that take longer.
- **p50, p99**: 50 % and 99 % of the calls or requests take at most this long.
- **Early exit**: the model looks a second time (at the mirrored image) only when it is unsure.
- **MACs**: multiply-accumulate operations for one image, the work of the network; with an early
  exit, for an image that does not take it.
- **Pareto front**: the models for which no other is both more accurate and cheaper.
- **Gap**: accuracy on the training images minus accuracy on the test images, in points; a large gap
  is overfitting.
- **Floor**: accuracy on CIFAR-10 below which a benchmark does not look at speed: 85 % in MLPerf
  Tiny, 94 % in DAWNBench.
- **ECE**: expected calibration error, the mean distance between confidence and accuracy.
- **Damaged, %**: mean accuracy on copies with noise, blur, JPEG, brightness and contrast damage.
- **Accuracy per M parameters**: percentage points per million parameters, the reference study's
  measure. It favours the smallest model without bound, so nothing is ranked by it.
- **Requests/s, one core**: what one core serves, the figure for planning: successful responses per
  second at full speed, the server on one core and the load generator on another. It is measured for
  the few models in *Other servers* and *Workers, threads and batch size*.
- **Requests/s, shared cores**: the same for every model, but the server (one worker) and the load
  generator share all cores and slow each other down; * marks a run that the generator limited. Do
  not compare it with the figure for one core.
- **fp32, int8**: numbers of 32 bits (floating point) or 8 bits (integer) inside the network.
- **Seed**: start of the random numbers of one training; mean ± standard deviation over several.
"""

SECTIONS: Final = (
    Section(90, "What was measured", "the plan of the newest session", what_was_measured, True),
    Section(92, "Method and limits", "how the figures were made", lambda shown: [_METHOD], True),
    Section(94, "Machine and versions", "what it ran on", machine_and_versions, True),
    Section(96, "Glossary", "MACs, Pareto, gap, floor, p99", lambda shown: [_GLOSSARY], True),
)
