"""Tests of the model store: cards, records and digests."""

import dataclasses
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cifar10.card import ModelCard, RefusedVariant, VariantRecord, read_card
from cifar10.errors import (
    DigestMismatchError,
    InvalidCardError,
    InvalidModelNameError,
    ModelNotFoundError,
    UnreadableStoreError,
)
from cifar10.paired import mcnemar
from cifar10.records import RecordError, from_json, to_json
from cifar10.store import ModelStore, write_atomic
from tests.conftest import add_model, linear_onnx


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    add_model(tmp_path, "one", linear_onnx(1))
    return ModelStore(tmp_path)


def change_card(store: ModelStore, **changes: object) -> None:
    path = store.folder("one") / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@contextmanager
def without_privilege() -> Iterator[None]:
    """Run as a user without root's privileges."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize("closed", ["", "one"])
def test_an_unreadable_store_is_an_error_with_a_remedy(closed):
    with tempfile.TemporaryDirectory() as name:  # its parents are accessible to all users
        root = Path(name)
        add_model(root, "one", linear_onnx(1))
        root.chmod(0o755)
        (root / closed).chmod(0)
        try:
            with without_privilege(), pytest.raises(UnreadableStoreError) as caught:
                ModelStore(root).names()
        finally:
            (root / closed).chmod(0o755)
    assert str(root / closed) in str(caught.value)
    assert f"chmod -R a+rX {root}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_card_survives_a_round_trip(store):
    card = store.card("one")
    assert read_card(to_json(card)) == card


def test_an_older_card_without_variant_is_read(store):
    document = json.loads(to_json(store.card("one")))
    assert document.pop("variant") is None
    (store.folder("one") / "card.json").write_text(json.dumps(document))
    assert store.card("one").variant is None


def test_an_older_card_is_of_cifar10(store):
    """Cards did not name their data set, which was always CIFAR-10."""
    document = json.loads(to_json(store.card("one")))
    assert document["dataset"].pop("name") == "cifar10"
    (store.folder("one") / "card.json").write_text(json.dumps(document))
    assert store.card("one").dataset.name == "cifar10"


def test_a_variant_s_card_has_all_its_fields(store):
    validation = mcnemar(np.arange(100) < 70, np.arange(100) < 69)
    record = VariantRecord("one", "0" * 64, "static int8", 1_000, validation)
    card = dataclasses.replace(store.card("one"), precision="int8", variant=record)
    assert read_card(to_json(card)) == card
    for wrong, message in (
        (to_json(dataclasses.replace(card, precision="int4")), "one of fp32, int8, fp16"),
        (to_json(card).replace("exact binomial", "a coin"), "method: expected one of exact"),
    ):
        with pytest.raises(InvalidCardError, match=message):
            read_card(wrong)


def test_a_refused_variant_is_not_a_model_and_gives_the_reason(store):
    card = dataclasses.replace(store.card("one"), name="one_int8")
    path = store.folder("one_int8") / "refused.json"
    write_atomic(path, to_json(RefusedVariant("loses 2 points", card)))
    assert store.refused() == [RefusedVariant("loses 2 points", card)]
    assert store.names() == ["one"]
    with pytest.raises(ModelNotFoundError, match="it was refused because it loses 2 points"):
        store.card("one_int8")
    older = json.loads(path.read_text())
    del older["card"]["early_exit"], older["card"]["calibration"]
    path.write_text(json.dumps(older))
    assert store.refused() == [RefusedVariant("loses 2 points", card)]
    path.write_text("{}")
    with pytest.raises(InvalidCardError, match=r"refused.json: .*missing fields \['reason'"):
        store.refused()
    write_atomic(path, to_json(RefusedVariant("loses 2 points", store.card("one"))))
    with pytest.raises(InvalidCardError, match="about 'one', not 'one_int8'"):
        store.refused()


def test_a_card_is_plain_json_with_tuples_as_lists(store):
    document = json.loads(to_json(store.card("one")))
    assert document["input"] == {"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}


def test_load_returns_the_bytes_that_were_checked(store):
    loaded = store.load("one")
    assert loaded.onnx == (store.folder("one") / "model.onnx").read_bytes()
    assert loaded.card.name == "one"


def test_a_changed_file_is_an_error_that_names_both_digests(store):
    said = store.card("one").sha256
    (store.folder("one") / "model.onnx").write_bytes(linear_onnx(2))
    with pytest.raises(DigestMismatchError) as caught:
        store.load("one")
    found = set(re.findall(r"\b[0-9a-f]{64}\b", str(caught.value)))
    assert said in found
    assert len(found) == 2


def test_a_folder_without_a_card_is_not_a_model(store):
    (store.folder("one") / "card.json").unlink()
    assert store.names() == []
    with pytest.raises(ModelNotFoundError, match=r"no model 'one'.*there are: none"):
        store.load("one")


def test_the_error_for_a_missing_model_lists_the_models(store):
    with pytest.raises(ModelNotFoundError, match="there are: one"):
        store.load("two")


@pytest.mark.parametrize("name", ["../one", "One", "", "a/b", "a-b", ".", "_x", "one\n", "é"])
def test_names_cannot_leave_the_store(store, name):
    with pytest.raises(InvalidModelNameError):
        store.load(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opset": "18"}, r"ModelCard\.opset: expected int, got \"18\""),
        ({"opset": True}, r"ModelCard\.opset: expected int, got true"),
        ({"extra": 1}, r"unknown fields \['extra'\]"),
        ({"labels": ["cat"]}, "there are 1 labels, expected 2 to 1,000"),
        ({"labels": [*"abcdefghi", " "]}, "label 9 is empty"),
        ({"labels": [*"abcdefghi", "a"]}, "the label 'a' occurs twice"),
        ({"labels": ["cat", "dog"]}, "the contract is"),
        ({"sha256": "xyz"}, "64 hex digits"),
        ({"schema_version": 99}, "schema version 99"),
        ({"name": "two"}, "is the card of 'two'"),
        ({"training": {}}, r"ModelCard\.training: missing fields"),
        ({"parity": None}, r"ModelCard\.parity: expected an object"),
        ({"input": {"name": "x", "datatype": "UINT8", "shape": [-1]}}, r"an image is \(\)"),
        ({"input": {"name": "x", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}}, "the contract is"),
        ({"input": {"name": "image", "datatype": "UINT8", "shape": [-1, 4, 8, 3]}}, "from 8 to"),
    ],
)
def test_the_error_for_a_wrong_card_names_the_fault(store, changes, message):
    change_card(store, **changes)
    with pytest.raises(InvalidCardError, match=message):
        store.card("one")


def test_a_missing_field_is_named(store):
    path = store.folder("one") / "card.json"
    document = json.loads(path.read_text())
    del document["macs"]
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidCardError, match=r"missing fields \['macs'\]"):
        store.card("one")


def test_a_card_that_is_not_json_is_an_error(store):
    (store.folder("one") / "card.json").write_text("{")
    with pytest.raises(InvalidCardError, match="not JSON"):
        store.card("one")


def test_a_model_with_random_weights_has_no_accuracy(store):
    change_card(store, accuracy=None)
    assert store.card("one").accuracy is None


@dataclasses.dataclass(frozen=True)
class Nested:
    pairs: tuple[tuple[int, float], ...]
    table: dict[str, float]
    maybe: int | None


def test_records_survive_a_round_trip():
    record = Nested(((1, 2.5), (3, 4.0)), {"a": 0.5}, None)
    assert from_json(Nested, to_json(record)) == record


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"pairs": [[1]], "table": {}, "maybe": null}', r"pairs\[0\]"),
        ('{"pairs": [[1, "x"]], "table": {}, "maybe": null}', r"pairs\[0\]\[1\]"),
        ('{"pairs": [], "table": {"a": []}, "maybe": null}', r"table\.a"),
        ('{"pairs": [], "table": {}, "maybe": 1.5}', "maybe"),
        ('{"pairs": 3, "table": {}, "maybe": null}', "expected a list"),
        ("[]", "expected an object"),
    ],
)
def test_record_errors_name_the_field(text, where):
    with pytest.raises(RecordError, match=where):
        from_json(Nested, text)


def test_readers_never_see_a_partial_file(tmp_path):
    path = tmp_path / "file"
    contents = [letter * 200_000 for letter in ("a", "b")]
    write_atomic(path, contents[0])
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(100):
        write_atomic(path, contents[turn % 2])
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_released_model_matches_its_card():
    store = ModelStore(Path(__file__).parents[2] / "models")
    card: ModelCard = store.load("simple_cnn").card
    assert card.parameters.total == 2_122_186
    assert card.parity.top1_agreement == 1.0
    assert card.parity.max_absolute_difference <= 1e-4
    assert card.accuracy is not None
    assert card.accuracy.test.count == 10_000


def golden_with(store: ModelStore, **changes: object) -> dict[str, object]:
    return {"golden": {**json.loads(to_json(store.card("one")))["golden"], **changes}}


@pytest.mark.parametrize(
    ("field", "raw", "message"),
    [
        ("macs", "1" + 30 * "0", "ModelCard.macs: expected an integer of at most 64 bits"),
        ("macs", "-1", "macs is -1, expected 0 or more"),
        ("commit", r'"\ud800"', "ModelCard.commit: expected text, got .* lone surrogate"),
        ("recipe_fields", r'{"\ud800": 1}', "ModelCard.recipe_fields: expected text"),
        ("recipe_fields", '{"a": NaN}', "NaN is not a JSON number"),
        ("recipe_fields", '{"a": [-Infinity]}', "Infinity is not a JSON number"),
        ("recipe_fields", '{"a": 1e999}', "recipe_fields.a: expected a finite number, got inf"),
        ("recipe_fields", '{"a": ' + 100 * "[" + 100 * "]" + "}", "nested more than 32 deep"),
        ("recipe_fields", '{"a": ' + 10**5 * "[" + 10**5 * "]" + "}", "nested more than 32 deep"),
        ("recipe_fields", '{"a": "' + (8 << 20) * "x" + '"}', "larger than 8,388,608 bytes"),
        ("created", "9" * 5_000, "not JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_card_holds_only_values_that_json_can_represent(store, field, raw, message):
    path = store.folder("one") / "card.json"
    document = json.loads(path.read_text())
    document[field] = "HERE"
    path.write_text(json.dumps(document).replace('"HERE"', raw))
    with pytest.raises(InvalidCardError, match=message):
        store.card("one")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": 1.0}, "golden.tolerance is 1, expected 0 to 0.1"),
        ({"tolerance": -1e-9}, "golden.tolerance"),
        ({"probabilities": []}, "golden.probabilities are 0 rows"),
        ({"probabilities": [[0.1] * 9]}, "golden.probabilities are 1 rows"),
        ({"probabilities": [[2.0] * 10]}, "golden.probabilities"),
    ],
)
def test_no_card_can_disable_its_golden_check(store, changes, message):
    change_card(store, **golden_with(store, **changes))
    with pytest.raises(InvalidCardError, match=re.escape(message)):
        store.card("one")


def test_an_infinite_tolerance_is_refused(store):
    path = store.folder("one") / "card.json"
    path.write_text(path.read_text().replace('"tolerance": 0.001', '"tolerance": Infinity'))
    with pytest.raises(InvalidCardError, match="Infinity is not a JSON number"):
        store.card("one")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX's FIFOs")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("card.json", InvalidCardError),
        ("model.onnx", ModelNotFoundError),
    ],
)
def test_a_fifo_in_the_store_is_an_error_and_does_not_block(store, name, error):
    path = store.folder("one") / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(error, match=f"{name}.*not a regular file"):
        store.load("one")


def test_an_invalid_refusal_of_another_variant_does_not_hide_a_missing_model(store):
    folder = store.folder("bad")
    folder.mkdir()
    (folder / "refused.json").write_text("{")
    with pytest.raises(ModelNotFoundError, match="no model 'two'"):
        store.card("two")
