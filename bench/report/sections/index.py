"""The sections of ``REPORT.md`` below the efficiency table, each from rows to Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.report.formats import (
    NOTHING,
    count,
    markdown_table,
    numbers_after_name,
    percent,
    short_provider,
    significant,
)
from bench.report.sections import analysis, evidence
from bench.report.sections.chaos import chaos
from bench.report.sections.peers import bulk, peers
from bench.report.sections.plan import missing, what_was_measured
from bench.report.sections.selftest import sensitivity
from bench.report.sections.sendings import as_sent
from bench.report.sections.speed import SCENARIO_SECTIONS
from bench.report.sections.tuning import settings
from bench.report.sections.variants import variants
from bench.report.study.sections import study, study_front
from bench.rows.files import MachineResults
from bench.rows.kinds.service import GENERATOR_LIMIT, RESPONSE_TIME_STEP_US, LoadMeasurement
from bench.rows.selection import ModelResult
from bench.statistics.samples import bootstrap_interval, interquartile_range, percentile
from cifar10.labels import LABELS

Section = Callable[[MachineResults, Sequence[ModelResult], Mapping[str, str]], str]
"""Machine, its models and its pictures (name → Markdown image) to text; empty: not shown."""


def machine_line(results: MachineResults) -> str:
    """One sentence on what the figures were measured on."""
    machine = results.machine
    gpus = ", ".join(machine.gpus) or "no GPU"
    memory_gib = machine.memory_bytes / 2**30
    return (
        f"Measured on {machine.cpu}, {machine.logical_cores} cores, {memory_gib:.0f} GiB, {gpus}."
    )


def per_class(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Recall of each class."""
    right = [model for model in models if model.accuracy is not None]
    if not right:
        return ""
    rows = [
        [
            _name(model, models),
            *(percent(model.accuracy.top1.per_class.get(label), 1) for label in LABELS),
        ]
        for model in right
        if model.accuracy is not None
    ]
    header = ["Model", *LABELS]
    return (
        "The share of each class's test images that the model gets right, in per cent.\n\n"
        + markdown_table(header, rows, numbers_after_name(header))
    )


def confusion(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """The picture of what is taken for what."""
    return pictures.get("confusion", "")


def latency(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Percentiles of one call, per batch size, with a bootstrap interval of the median."""
    rows = []
    for model in models:
        for size, cell in model.latency.items():
            samples = [sample / 1e6 for sample in cell.samples_ns]
            interval = bootstrap_interval(samples)
            rows.append(
                [
                    _name(model, models),
                    str(size),
                    f"{significant(percentile(samples, 50))} "
                    f"({significant(interval.low)}–{significant(interval.high)})",
                    significant(percentile(samples, 90)),
                    significant(percentile(samples, 99)),
                    significant(interquartile_range(samples)),
                    count(len(samples)),
                    str(cell.rounds),
                    str(cell.threads),
                ]
            )
    if not rows:
        return ""
    header = [
        "Model",
        "Batch",
        "p50, ms (95 % interval)",
        "p90, ms",
        "p99, ms",
        "Interquartile range, ms",
        "Calls",
        "Rounds",
        "Threads",
    ]
    table = markdown_table(header, rows, numbers_after_name(header))
    return _with_picture(table, pictures.get("latency"))


def throughput(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """Images per second, per batch size."""
    sizes = sorted({size for model in models for size in model.throughput})
    if not sizes:
        return ""
    rows = [
        [_name(model, models), *(count(model.images_per_second(size)) for size in sizes)]
        for model in models
        if model.throughput
    ]
    header = ["Model", *(f"batch {size}" for size in sizes)]
    table = markdown_table(header, rows, numbers_after_name(header))
    text = _with_picture(
        "Images per second in process: the median over the rounds.\n\n" + table,
        pictures.get("throughput"),
    )
    return _with_picture(text, pictures.get("throughput_latency"))


def load(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """The load runs, and whether the generator was their limit."""
    rows = []
    limited = []
    runs = [
        (model, found)
        for model in models
        for found in ((model.load,) if model.load else ()) + model.offered
    ]
    for model, found in runs:
        times = found.response_times_ms
        if found.generator_was_limit:
            limited.append(model.model)
        sent = sum(found.status_counts.values())
        rows.append(
            [
                _name(model, models),
                str(found.users),
                _loop(found),
                count(found.request_rate),
                *(significant(percentile(times, level)) for level in (50, 90, 99)),
                count(sent),
                count(sent - found.status_counts.get("200", 0)),
                f"{significant(found.seconds)} + {significant(found.warm_up_seconds)}",
                percent(found.generator_cpu_share, 0),
                count(found.server_cpu_us),
            ]
        )
    if not rows:
        return ""
    header = [
        "Model",
        "Users",
        "Loop",
        "Requests/s",
        "p50, ms",
        "p90, ms",
        "p99, ms",
        "Requests",
        "Not 200",
        "Seconds + warm-up",
        "Generator, % of a core",
        "Server CPU, µs/request",
    ]
    table = markdown_table(header, rows, numbers_after_name(header))
    if limited:
        limit = (
            f"**The load generator was the limit for {', '.join(limited)}** (above "
            f"{percent(GENERATOR_LIMIT, 0)} % of its core): their server can do more than this."
        )
    else:
        limit = (
            f"The generator stayed below {percent(GENERATOR_LIMIT, 0)} % of its core throughout; "
            "it still shares the machine's cores with the server."
        )
    return _with_picture(f"{_CLOSED_LOOP}\n\n{table}\n{limit}", pictures.get("load"))


def _loop(found: LoadMeasurement) -> str:
    if found.rate_per_s is None:
        return "closed"
    return f"open, {found.shape}, {found.rate_per_s:g}/s offered"


def trade_offs(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """The picture of accuracy against each cost."""
    return pictures.get("trade_offs", "")


def method(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """How it was measured, and what that leaves open."""
    return _METHOD


def machine_and_versions(
    results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
) -> str:
    """What ran, and on what."""
    machine = results.machine
    rows = [
        ["Processor", machine.cpu],
        ["Cores usable / physical", f"{machine.logical_cores} / {machine.physical_cores}"],
        ["Memory", f"{machine.memory_bytes / 2**30:.1f} GiB"],
        ["GPU", ", ".join(machine.gpus) or "none"],
        ["GPU driver", machine.gpu_driver or NOTHING],
        ["System", f"{machine.operating_system}, kernel {machine.kernel}, {machine.architecture}"],
        ["Virtualization", machine.virtualization or "no sign of any"],
        ["Frequency governor", machine.governor or "not readable"],
        ["Fingerprint", f"`{machine.identity}`"],
    ]
    last = results.rows[-1]
    rows += [[name, version] for name, version in last.versions.items()]
    digests = [
        [model.model, f"`{model.digest[:16]}`" if model.digest else NOTHING] for model in models
    ]
    return (
        markdown_table(["What", "Is"], rows, ["left", "left"])
        + f"\nNewest row: {last.created[:10]}. The models measured:\n\n"
        + markdown_table(
            ["Model", "SHA-256 of model.onnx"],
            [list(pair) for pair in dict.fromkeys(map(tuple, digests))],
            ["left", "left"],
        )
    )


def _picture(name: str) -> Section:
    """A section that is one picture, where it could be drawn."""
    return lambda results, models, pictures: pictures.get(name, "")


def _and_what_is_missing(render: Section, what: str) -> Section:
    """``render``, and below it the models of which a session left ``what`` out."""

    def both(
        results: MachineResults, models: Sequence[ModelResult], pictures: Mapping[str, str]
    ) -> str:
        parts = (render(results, models, pictures).rstrip(), missing(models, what))
        return "\n\n".join(part for part in parts if part)

    return both


SECTIONS: Final[tuple[tuple[str, Section], ...]] = (
    ("Accuracy against cost", trade_offs),
    ("The study's models, and what dominates each", study_front),
    ("Variants at another precision", variants),
    ("Latency in process", _and_what_is_missing(latency, "latency")),
    ("Throughput in process", _and_what_is_missing(throughput, "throughput")),
    ("Over HTTP, under load", _and_what_is_missing(load, "HTTP load")),
    *SCENARIO_SECTIONS,
    ("Would `compare` notice?", sensitivity),
    ("The service when it is hurt", chaos),
    ("Memory, start-up and energy", _and_what_is_missing(evidence.resources, "memory")),
    ("Training", evidence.training),
    ("Seconds per epoch, and convergence", analysis.convergence),
    ("Overfitting", analysis.overfitting),
    ("The same recipe, another seed", analysis.seeds),
    ("Are the differences real?", evidence.paired),
    ("Accuracy by class", per_class),
    ("Confusion", confusion),
    ("Calibration", evidence.calibration),
    ("Robustness", _and_what_is_missing(evidence.robustness, "robustness")),
    ("Images as users send them", as_sent),
    ("The reference study beside ours", study),
    ("CNN against transfer learning", _picture("cnn_and_transfer")),
    ("Backbones: accuracy and size", _picture("backbones")),
    ("What each change does", analysis.ablation),
    ("The study's conclusions, held against the rows", analysis.conclusions),
    ("The peers beside us", peers),
    ("Many images in one request", bulk),
    ("Workers, threads and batch size", settings),
    ("What was measured", what_was_measured),
    ("Method and limits", method),
    ("Machine and versions", machine_and_versions),
)
"""Title → what renders it, in order."""

_CLOSED_LOOP: Final = (
    "Closed loop: each user sends its next request when it has the last answer, so the rate is "
    "what the server sustains and the times are those at saturation. One real test image per "
    "request, as PNG; the answer is JSON."
)

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


def _with_picture(text: str, picture: str | None) -> str:
    return f"{text.rstrip()}\n\n{picture}" if picture else text


def _name(model: ModelResult, models: Sequence[ModelResult]) -> str:
    """The model's name; with its provider where the same model ran on several."""
    if sum(other.model == model.model for other in models) > 1:
        return f"{model.model}, {short_provider(model.provider)}"
    return model.model
