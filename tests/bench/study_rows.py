"""Made-up rows of a complete study, for tests of its analysis."""

from dataclasses import replace
from typing import Any

import numpy as np

from bench.rows.files import Recorder
from bench.rows.kinds.cost import EpochFigures, TrainingMeasurement
from bench.rows.packed import pack_hits
from tests.bench.conftest import accuracy, add_all, cost, latency, throughput

BACKBONES = {
    "resnet50": (94.0, 4_300), "resnet152": (233.0, 14_700), "resnet101": (170.0, 9_700),
    "vgg16": (59.0, 9_300), "vgg19": (80.0, 11_800), "efficientnetb0": (16.0, 770),
    "efficientnetb3": (43.0, 3_400), "mobilenetv2": (9.0, 320), "mobilenetv3large": (12.0, 720),
}  # fmt: skip
"""Name → MB and p50 in µs."""


def fields(
    resolution: int = 32,
    preprocessing: str = "unit",
    trained: tuple[int, ...] = (0,),
    epochs: tuple[int, ...] = (10,),
    units: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Return recipe fields as ``training/`` writes them."""
    return {
        "name": "x",
        "source": "y",
        "architecture": {
            "type": "Backbone",
            "backbone": "mobilenetv2",
            "resolution": resolution,
            "preprocessing": preprocessing,
            "head": {
                "pooling": "average",
                "dense_units": list(units),
                "dropout": [0.5] * len(units),
            },
            "trained_layers": list(trained),
        },
        "batch_size": 64,
        "phases": [
            {"name": f"p{number}", "epochs": count, "learning_rate": 1e-3, "patience": 3}
            for number, count in enumerate(epochs)
        ],
    }


def trained(
    best: float, recipe_fields: dict[str, Any] | None, epochs: int = 8
) -> TrainingMeasurement:
    """Curve that rises to ``best``, with a new phase half-way if the recipe has several."""
    phases = len((recipe_fields or {}).get("phases", [1]))
    values = [best * (1 - 0.5 * 0.6**number) for number in range(epochs)]
    values[-1] = best
    curve = tuple(
        EpochFigures(value + 0.05, value, 1.0, 1.1, f"p{number * phases // epochs}")
        for number, value in enumerate(values)
    )
    seconds = tuple(3.0 + 0.1 * number for number in range(epochs))
    return TrainingMeasurement(seconds, epochs, best + 0.05, best, best, curve, recipe_fields)


def shuffled(correct: int, seed: int, gap: float = 0.05):
    """Return a row like ``accuracy`` with other images correct."""
    found = accuracy(correct, gap=gap)
    hits = np.random.default_rng(seed).permutation(np.arange(10_000) < correct)
    return replace(found, hits=pack_hits(hits))


def fill_study(recorder: Recorder) -> None:
    """Record the CNN, ``compact`` with seeds and int8, MobileNetV2 variants and nine backbones."""
    number = 0

    def add(name: str, recipe: str, correct: int, us: int, megabytes: float, macs: int,
            told: dict[str, Any] | None = None, seed: int = 0, precision: str = "fp32",
            gap: float = 0.05) -> None:  # fmt: skip
        nonlocal number
        number += 1
        price = replace(
            cost(recipe, int(megabytes * 250_000), int(megabytes * 1e6), macs),
            seed=seed, precision=precision,
        )  # fmt: skip
        measured = [price, shuffled(correct, number, gap), trained(correct / 10_000, told)]
        if seed == 0:
            measured += [latency(us * 1_000), throughput(1_000_000 // us)]
        add_all(recorder, name, f"{number:064x}", *measured)

    add("simple_cnn", "simple_cnn", 6_987, 230, 8.5, 7_710_000, gap=0.13)
    cnn = (120, 2.1, 7_710_000)
    add("simple_cnn_int8", "simple_cnn", 6_980, *cnn, precision="int8", gap=0.13)
    for seed, correct in enumerate((9_100, 9_120, 9_060)):
        name = f"compact_seed{seed}" if seed else "compact"
        add(name, "compact", correct, 400, 0.41, 20_000_000, seed=seed)
    add("compact_int8", "compact", 9_085, 300, 0.13, 20_000_000, precision="int8")
    mobile = (320, 9.0, 6_500_000)
    add("mobilenetv2_frozen", "mobilenetv2_frozen", 3_030, *mobile, fields())
    native = fields(preprocessing="native")
    add("mobilenetv2_frozen_native", "mobilenetv2_frozen_native", 2_590, *mobile, native)
    tuned = fields(trained=(0, 10), epochs=(10, 10))
    add("mobilenetv2_finetuned", "mobilenetv2_finetuned", 4_000, *mobile, tuned)
    large = fields(96, "native", units=(256,))
    add("mobilenetv2_96", "mobilenetv2_96", 7_320, 2_500, 9.5, 55_000_000, large)
    best = fields(96, "native", (0, 153), (10, 6), (256,))
    for seed in (0, 1):
        name = f"mobilenetv2_tuned{'_seed1' if seed else ''}"
        add(name, "mobilenetv2_tuned", 9_300 + seed, 2_500, 9.6, 56_000_000, best, seed)
    for backbone, (megabytes, us) in BACKBONES.items():
        for twin in ("", "_native"):
            name = f"backbone_{backbone}{twin}"
            way = fields(preprocessing="native" if twin else "unit", epochs=(5,), units=(256,))
            if backbone == "mobilenetv2":
                add(name, name, 3_400 - 500 * bool(twin), us, megabytes, 6_500_000, way)
                continue
            number += 1
            add_all(
                recorder, name, f"{number:064x}", latency(us * 1_000),
                cost(name, int(megabytes * 250_000), int(megabytes * 1e6), us * 20_000,
                     random_weights=True),
            )  # fmt: skip
