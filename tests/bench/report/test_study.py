"""Tests of the study beside ours, seeds, ablation and conclusions, with made-up rows."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.report.build import prepare, stale_files, write_report
from bench.report.efficiency import entries
from bench.report.sections.study import ablation, beside, study_front, study_table
from bench.report.sections.training import overfitting, seeds, training
from bench.report.shown import Shown
from bench.report.study.ablation import single_changes, way_to_the_best
from bench.report.study.conclusions import conclusions
from bench.report.study.front import dominations, placed
from bench.report.study.recipe_facts import differing, facts_of
from bench.report.tables import Table
from bench.report.verdict import pick_for_budgets
from bench.rows.files import MachineResults, Recorder, read_results
from bench.rows.seeds import one_of_each, seed_groups
from bench.rows.selection import ModelResult, select
from tests.bench.conftest import add_all, cost, latency, text_of
from tests.bench.study_rows import fields, fill_study, shuffled, trained


@pytest.fixture
def machine_results(recorder: Recorder) -> MachineResults:
    fill_study(recorder)
    (found,) = read_results(recorder.folder.parent)
    return found


@pytest.fixture
def models(machine_results: MachineResults) -> list[ModelResult]:
    return select(machine_results.rows)


def test_what_dominates_each_of_the_studys_models(models: list[ModelResult]) -> None:
    by_name = {one.study.model: one for one in placed(models)}
    assert len(by_name) == 12
    (of_vgg,) = dominations(by_name["VGG16"], models)
    assert of_vgg.by.model == "mobilenetv2_tuned"
    assert of_vgg.points == pytest.approx(93.00 - 25)
    assert of_vgg.times_cheaper["latency"] == pytest.approx(9.3 / 2.5)
    assert of_vgg.times_cheaper["size"] == pytest.approx(59.0 / 9.6)
    (of_cnn,) = dominations(by_name["Simple CNN"], models)  # our own build of it is no rival
    assert (of_cnn.by.model, set(of_cnn.times_cheaper)) == ("compact", {"size"})
    assert {each.by.model for each in dominations(by_name["MobileNetV2, frozen"], models)} == {
        "compact_int8", "compact",
    }  # fmt: skip
    assert dominations(by_name["MobileNetV2, fine-tuned"], models) == []


def test_the_section_tells_the_study_s_figures_from_ours(
    machine_results: MachineResults, models: list[ModelResult]
) -> None:
    text = text_of(study_front, machine_results, models)
    assert (
        "| VGG16 | ~ 25 | backbone_vgg16 | no pretrained weights here | 9.30 | 59.0 | 186 "
        "| mobilenetv2_tuned | +68.0 | 3.7× | 6.1× | 3.3× |" in text
    )
    assert "| compact, in size only | +21.6 | – | 21× | – |" in text
    assert "the study printed no figure" in text
    few = [model for model in models if model.model in ("simple_cnn", "compact")]
    assert "Not in the table, because no build of ours was measured: MobileNetV2, frozen, " in (
        text_of(study_front, machine_results, few)
    )
    assert text_of(study_front, machine_results, []) == ""
    table = study_table(models).markdown()
    assert "| MobileNetV2 | ~ 21 | – | – | 5 | backbone_mobilenetv2 | 34.00" in table
    assert "| ~ +13.0 |" in table


def test_seeds_are_one_recipe_and_do_not_crowd_out_others(models: list[ModelResult]) -> None:
    groups = {(group.recipe, group.precision): group for group in seed_groups(models)}
    compact = groups["compact", "fp32"]
    assert [model.model for model in compact.models] == [
        "compact", "compact_seed1", "compact_seed2",
    ]  # fmt: skip
    assert compact.mean == pytest.approx((0.91 + 0.912 + 0.906) / 3)
    assert compact.deviation == pytest.approx(0.00306, abs=1e-5)
    assert len(groups["compact", "int8"].models) == 1
    kept = {model.model for model in one_of_each(models)}
    assert {"compact", "compact_int8"} <= kept
    assert not {"compact_seed1", "compact_seed2", "mobilenetv2_tuned_seed1"} & kept
    fronts = {entry.result.model: entry.on_fronts for entry in entries(models)}
    assert fronts["compact"] == ("latency", "size", "MACs")
    assert fronts["compact_seed1"] == ()
    assert {pick.model.model for pick in pick_for_budgets(models) if pick.model} <= kept
    text = text_of(seeds, None, models)
    assert "| compact | fp32 | 3 | 90.93 ± 0.31 | 0.6 | 0: 91.00, 1: 91.20, 2: 90.60 |" in text


def test_a_recipe_that_was_changed_in_between_has_no_seeds_in_common(recorder: Recorder) -> None:
    """A reworded recipe is the same; one that trains differently is another, whatever its name."""

    def groups(**changed: object) -> list[int]:
        for seed, told in enumerate(({}, changed)):
            price = replace(cost("deep"), seed=seed)
            rows = (price, shuffled(5_000, seed), trained(0.5, {**fields(), **told}))
            add_all(recorder, f"deep_seed{seed}", str(seed) * 64, *rows)
        models = select(read_results(recorder.folder.parent)[0].rows)
        assert len(one_of_each(models)) == len(seed_groups(models))
        return [len(group.models) for group in seed_groups(models)]

    assert groups(source="said otherwise") == [2]
    assert groups(batch_size=32) == [1, 1]


def test_the_factors_of_a_recipe(recorder: Recorder) -> None:
    def facts(**changes):
        told = trained(0.5, fields(**changes))
        add_all(recorder, "x", "x" * 64, cost(), told)
        (found,) = select(read_results(recorder.folder.parent)[0].rows)
        return facts_of(found)

    plain = facts()
    assert plain.shown("base") == "frozen"
    assert differing(plain, facts(preprocessing="native")) == ("preprocessing",)
    assert differing(plain, facts(resolution=96, units=(256,))) == ("resolution", "head")
    assert differing(plain, facts(epochs=(50,))) == ("epochs",)
    few = replace(plain, images=1_000)
    assert differing(plain, few) == ("images",)
    assert (plain.shown("images"), few.shown("images")) == ("all images", "1,000 training images")
    assert plain.ordinal("images") < few.ordinal("images")
    # A base that is trained needs a phase of its own: that is no other number of epochs.
    assert differing(plain, facts(trained=(0, 10), epochs=(10, 20))) == ("base",)
    assert differing(plain, facts(trained=(0, 10), epochs=(9, 20))) == ("base", "epochs")
    deep = facts(trained=(0, 10), epochs=(10, 20))
    assert differing(deep, replace(deep, batch_statistics=True)) == ("statistics",)
    slower = replace(deep, rates=(deep.rates[0], "slower"))
    assert differing(deep, slower) == ("optimisation",)
    assert differing(plain, slower) == ("base",)
    assert differing(deep, facts(trained=(0, 10, 10), epochs=(10, 20, 5))) == ("epochs",)
    add_all(recorder, "y", "y" * 64, cost(), trained(0.5, None))
    assert [facts_of(each) for each in select(read_results(recorder.folder.parent)[0].rows)
            if each.model == "y"] == [None]  # fmt: skip


def test_ablation_pairs_differ_in_one_thing_and_are_paired(models: list[ModelResult]) -> None:
    steps = {(step.before.result.model, step.after.result.model): step
             for step in single_changes(models)}  # fmt: skip
    assert set(steps) == {
        ("mobilenetv2_frozen", "mobilenetv2_frozen_native"),
        ("backbone_mobilenetv2", "backbone_mobilenetv2_native"),
        ("mobilenetv2_frozen", "mobilenetv2_finetuned"),
        ("mobilenetv2_96", "mobilenetv2_tuned"),
    }
    step = steps["mobilenetv2_frozen", "mobilenetv2_finetuned"]
    assert step.told() == "frozen → last 10 layers trained (10 epochs more)"
    assert step.test.difference == pytest.approx(0.097)
    assert step.test.low < 0.097 < step.test.high
    way = way_to_the_best(models)
    assert way[0].before.result.model == "mobilenetv2_frozen"
    assert [step.after.result.model for step in way] == [
        "mobilenetv2_frozen_native", "mobilenetv2_96", "mobilenetv2_tuned",
    ]  # fmt: skip


def test_conclusions_follow_the_rows(models: list[ModelResult], recorder: Recorder) -> None:
    said = text_of(conclusions, None, models)
    assert "`simple_cnn` reaches 69.87 %, 0.5 points more: repeated within 3 points." in said
    assert "`mobilenetv2_frozen` reaches 30.30 %, 20.8 points less: **not repeated**" in said
    assert "of 5 models 5 are significantly less accurate and 0 more" in said
    assert "`mobilenetv2_tuned`, reaches 93.00 %" in said
    assert "Preprocessing alone, in 2 pairs: -4.7 points on average" in said
    assert "largest first: training of the base, preprocessing" in said
    assert "Of our 3 configurations of that backbone at 32 px with x/255, " in said
    assert said.count("is nearest, and does not reproduce them") == 3
    assert "printed after each of the 24 epochs of those trainings" in said
    assert "`mobilenetv2_finetuned`, epoch 8, is nearest, and does not reproduce them: " in said
    assert "45.0 % and 40.0 %." in said
    assert "Of all 7 configurations of that backbone, at any size and preprocessing, " in said
    found = replace(shuffled(5_100, 99, gap=0.40), provider=models[0].provider)
    add_all(recorder, "odd", "0" * 64, cost("odd"), found, trained(0.5, fields(epochs=(30,))))
    again = select(read_results(recorder.folder.parent)[0].rows)
    assert "`odd` reproduces both: 91.0 % and 51.0 %." in text_of(conclusions, None, again)
    few = fields(resolution=64) | {"train_images": 1_000}
    add_all(recorder, "few", "1" * 64, cost("few"), replace(
        shuffled(5_109, 98, gap=0.4071), provider=models[0].provider,
    ), trained(0.5, few))  # fmt: skip
    again = select(read_results(recorder.folder.parent)[0].rows)
    assert (
        "preprocessing, `few` (64 px, x/255, frozen, 1,000 training images, "
        "2,122,186 trained parameters) reproduces both: 91.8 % and 51.1 %."
    ) in text_of(conclusions, None, again)
    assert text_of(conclusions, None, []) == ""


def test_without_such_rows_there_is_no_section(recorder: Recorder) -> None:
    add_all(
        recorder, "heavy", "h" * 64, cost("heavy", random_weights=True), latency(9_000_000),
        trained(0.5, fields()),
    )  # fmt: skip
    models = select(read_results(recorder.folder.parent)[0].rows)
    for section in (seeds, overfitting, training, ablation, conclusions):
        assert text_of(section, None, models) == ""
    assert (models[0].training.epochs, models[0].training.test_accuracy) == ((), None)


def test_gap_convergence_and_phases(models: list[ModelResult]) -> None:
    gaps = text_of(overfitting, None, models)
    assert "| simple_cnn | 82.87 | 69.87 | 13.0 | 17.4 |" in gaps
    assert "| mobilenetv2_frozen | 35.30 | 30.30 | 5.0 | 40.7 |" in gaps
    assert "heavy" not in gaps
    blocks = training(Shown(None, tuple(models)))
    table, phases = (block for block in blocks if isinstance(block, Table))
    assert "simple_cnn,8,8,74.87,69.87,69.87,0.447,3.35 (3.00–3.70),8,2 cores" in table.csv()
    assert "mobilenetv2_tuned,p1,4,93.00,+10.04" in phases.csv()
    assert "backbone_resnet50" not in table.csv()


def test_the_whole_report_of_a_large_store_is_drawn_and_checked(
    machine_results: MachineResults, tmp_path: Path
) -> None:
    reports = prepare([machine_results], tmp_path / "results")
    written = {path.name: path for path in write_report(reports, tmp_path / "results", tmp_path)}
    assert "training.svg" in written
    assert stale_files(reports, tmp_path / "results", tmp_path) == []
    assert len(reports[0].drawn) == 6
    assert not any("seed" in model.model for model in reports[0].subjects)
    picture = beside(reports[0])
    assert [name for _, name in picture.panels[0].y.ticks][:2] == [
        "Simple CNN", "MobileNetV2, frozen",
    ]  # fmt: skip
