"""Tests of the plan: which models are measured in full, and what the report says of the rest."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.commands.choices import open_model
from bench.measure.latency import LatencyPlan
from bench.measure.setup import Setup
from bench.report.efficiency import efficiency_table
from bench.report.sections.plan import what_was_measured
from bench.rows.files import Recorder, read_results
from bench.rows.selection import select
from bench.serving.target import Target
from bench.session import stages
from bench.session.plan import (
    LEFT_OUT,
    MOST_FULL,
    decide,
    first_roles,
    latency_plan_for,
    lengths_for,
    rule,
)
from bench.session.resume import run_stages
from bench.session.stages import Everything, groups_of, stages_of
from cifar10.card import ModelCard, WeightsRecord
from cifar10.dataset import Dataset
from cifar10.records import to_json
from cifar10.store import ModelStore
from tests.bench.conftest import accuracy, add_all, cost, latency, text_of
from tests.conftest import add_model, linear_onnx

RANDOM = WeightsRecord("resnet50", "none", "0" * 64, random=True)


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return add_model(tmp_path / "one", "tiny", linear_onnx(0))


def family(card: ModelCard) -> list[ModelCard]:
    """Return a baseline, seven models (four on a front), a second seed, and one without weights."""
    names = ["simple_cnn", "best", "small", "fast", "light", "twin", "late", "beaten"]
    cards = [replace(card, name=name, recipe=name) for name in names]
    cards.append(replace(card, name="best_seed1", recipe="best", seed=1))
    cards.append(replace(card, name="best_int8", recipe="best", precision="int8"))
    return [*cards, replace(card, name="heavy", recipe="heavy", weights=RANDOM)]


def fill(recorder: Recorder) -> None:
    """Record (accuracy, p50 in µs, bytes, multiply-accumulates) of each model."""
    figures = {
        "simple_cnn": (6_800, 900, 900, 900),
        "best": (9_500, 800, 800, 800),
        "small": (7_000, 700, 10, 700),
        "fast": (7_100, 10, 700, 700),
        "light": (7_200, 700, 700, 10),
        "twin": (9_000, 500, 500, 500),
        "late": (8_000, 400, 400, 600),
        "beaten": (6_000, 900, 900, 900),
        "best_int8": (9_400, 850, 850, 850),
    }
    for name, (correct, us, size, macs) in figures.items():
        add_all(
            recorder, name, name[0] * 64, cost(name, 1, size, macs),
            accuracy(correct), latency(us * 1_000),
        )  # fmt: skip
    add_all(recorder, "best_seed1", "s" * 64, cost("best", 1, 1, 1), accuracy(9_600))
    add_all(recorder, "heavy", "h" * 64, cost("heavy", random_weights=True), latency(9_000_000))


def test_seeds_and_random_weights_are_known_from_the_cards(card: ModelCard) -> None:
    roles = first_roles(family(card))
    assert roles["best_seed1"] == "other seed"
    assert roles["heavy"] == "cost only"
    assert roles["best_int8"] == roles["best"] == roles["simple_cnn"] == "in process"
    assert first_roles(family(card), ["best_seed1"])["best_seed1"] == "in process"
    equal = [replace(card, name=name) for name in ("a", "b")]
    assert set(first_roles(equal).values()) == {"in process"}  # not seeds of each other


def test_baseline_front_and_named_models_are_measured_in_full(
    card: ModelCard, recorder: Recorder
) -> None:
    fill(recorder)
    (machine,) = read_results(recorder.folder.parent)
    found = decide(family(card), select(machine.rows), ["beaten"])
    full = {name: part.reason for name, part in found.items() if part.role == "full"}
    assert full == {
        "simple_cnn": "the baseline",
        "best": "on the front of accuracy against latency, size, MACs",
        "twin": "on the front of accuracy against latency, size, MACs",
        "late": "on the front of accuracy against latency, size",
        "light": "on the front of accuracy against MACs",
        "beaten": "named with --full",
    }
    assert len(full) == MOST_FULL + 1
    assert found["fast"].reason == f"on a front, but {MOST_FULL} models come before it"
    assert found["best_int8"].reason == "on no front"
    assert found["best_seed1"].reason == "another seed of best"
    assert found["heavy"].left_out == LEFT_OUT["cost only"]
    assert "300 ms" in rule()


@pytest.mark.parametrize("others", [(), ("photo_int8",)])
def test_models_that_answer_by_default_are_measured_in_full(
    card: ModelCard, recorder: Recorder, others: tuple[str, ...]
) -> None:
    fill(recorder)
    cards = family(card)
    defaults = ("compact_int8", *others)
    for name in defaults:
        cards.append(replace(card, name=name, recipe=name, precision="int8"))
        add_all(
            recorder, name, name[2] * 64, cost(name, 1, 950, 950), accuracy(6_000), latency(950_000)
        )
    (results,) = read_results(recorder.folder.parent)
    roles = decide(cards, select(results.rows))
    full = [name for name, part in roles.items() if part.role == "full"]
    assert set(defaults) < set(full)
    assert len(full) == MOST_FULL
    assert roles["compact_int8"].reason == "answers by default"


def test_few_candidates_are_all_measured_in_full(card: ModelCard, recorder: Recorder) -> None:
    cards = [replace(card, name=name, recipe=name) for name in ("a", "b")]
    for one in cards:
        add_all(recorder, one.name, one.name * 64, cost(), accuracy(6_000), latency(1_000))
    (machine,) = read_results(recorder.folder.parent)
    assert {part.role for part in decide(cards, select(machine.rows)).values()} == {"full"}


def test_plans_shrink_with_the_number_of_models() -> None:
    assert latency_plan_for(1) == LatencyPlan(call_ns_most=300_000_000)
    many = latency_plan_for(30)
    seconds = 30 * len(many.batch_sizes) * (many.rounds + 1) * many.block_ns / 1e9
    assert seconds == pytest.approx(180, rel=0.01)
    assert latency_plan_for(10, short=True).rounds < latency_plan_for(10).rounds
    assert lengths_for(5).load.seconds < lengths_for(1).load.seconds


def test_large_models_are_timed_in_groups() -> None:
    sizes = {"a": 200_000_000, "b": 90_000_000, "c": 90_000_000, "d": 900_000_000, "e": 1}
    assert groups_of(sizes, sizes) == [["a", "b"], ["c"], ["d"], ["e"]]


def test_each_model_gets_its_role_and_a_resumed_session_repeats_nothing(
    tmp_path: Path, recorder: Recorder, synthetic: Dataset
) -> None:
    store = ModelStore(tmp_path / "store")
    variants = {
        "net": {}, "net_seed1": {"seed": 1}, "heavy": {"weights": RANDOM, "accuracy": None},
    }  # fmt: skip
    for seed, (name, changes) in enumerate(variants.items()):
        made = add_model(store.root, name, linear_onnx(seed))
        changed = replace(made, recipe=name.removesuffix("_seed1"), **changes)
        (store.folder(name) / "card.json").write_text(to_json(changed))
    cards = [store.card(name) for name in store.names()]

    def rows():
        return [row for here in read_results(recorder.folder.parent) for row in here.rows]

    plan = LatencyPlan(batch_sizes=(1, 8), rounds=2, warm_up_calls=1, block_calls=3)
    session = Everything(
        Setup(store, synthetic, recorder, lambda stored: open_model(stored, "cpu", 1)),
        Target(store.root, device="cpu"),
        quick=False,
        rows=rows,
        named=[],
        quick_latency=plan,
        lengths=lengths_for,
    )
    on_each = stages_of(session, cards)[:5]
    digests = {card.name: card.sha256 for card in cards}
    told: list[str] = []
    outcome = run_stages(on_each, digests, rows, told.append)
    assert not outcome.failed
    assert told[0] == "1/5 accuracy and speed: net"
    kinds = {name: {row.kind for row in rows() if row.model == name} for name in digests}
    everywhere = {"cost", "training", "plan"}
    assert kinds["net"] == everywhere | {"accuracy", "latency", "throughput", "resources"}
    assert kinds["net_seed1"] == everywhere | {"accuracy"}
    assert kinds["heavy"] == everywhere | {"latency", "throughput"}

    count, told = len(rows()), []
    run_stages(on_each, digests, rows, told.append)
    assert len(rows()) == count
    assert all(line.endswith("nothing left to do") for line in told)
    few = stages.stages_of(session, cards)[5:]
    assert {tuple(stage.names()) for stage in few if stage.names} == {("net",)}

    (machine,) = read_results(recorder.folder.parent)
    models = select(machine.rows)
    text = text_of(what_was_measured, machine, models)
    assert "| net | full | one of 1 candidates | nothing |" in text
    assert "| net_seed1 | other seed | another seed of net | latency, throughput, memory" in text
    table = efficiency_table(models).markdown()
    assert "random weights: cost only" in table
    assert "another seed of net: not all was measured" in table
    assert table.count("(2 seeds)") == 2  # both seeds show the mean of the two
