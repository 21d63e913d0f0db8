"""Tests of the tables that the commands print: no cell is cut, whatever the width."""

import re

import pytest

from cifar10.commands.layout import lay_out
from cifar10.commands.terminal import forget_consoles, print_table, print_text

HEADER = ["Model", "Accuracy, %", "Images/s", "Requests/s, shared cores", "Note"]
ROWS = [
    ["compact", "89.95 (89.35–90.52)", "1,294", "857", "float32"],
    ["whitened_cnn_int8", "92.55 (92.02–93.05)", "584", "303", "the most accurate of the small"],
]
RIGHT = ("Accuracy, %", "Images/s", "Requests/s, shared cores")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """Make standard output a terminal of 80 columns."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    forget_consoles()
    yield
    forget_consoles()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, None])
def test_every_number_is_whole_and_no_line_too_long(width: int | None) -> None:
    found = lay_out(HEADER, ROWS, right=RIGHT, width=width)
    text = "\n".join(found.lines)
    for row in ROWS:
        for cell in row[:-1]:
            assert cell in text
        assert re.sub(r"\s", "", row[-1]) in re.sub(r"\s", "", text) or all(
            word in text for word in row[-1].split()
        )
    blocks = not found.header
    assert blocks or width is None or max(map(len, [*found.header, *found.lines])) <= width
    assert found.left_out == []


def test_names_are_wrapped_before_a_column_is_left_out() -> None:
    assert lay_out(HEADER, ROWS, right=RIGHT, spare=("Images/s",), width=103).left_out == []
    narrow = lay_out(HEADER, ROWS, right=RIGHT, spare=("Images/s",), width=83)
    assert narrow.left_out == ["Images/s"]
    assert not any("584" in line for line in narrow.lines)


def test_a_table_too_wide_for_any_column_becomes_blocks() -> None:
    found = lay_out(HEADER, ROWS[:1], right=RIGHT, width=30)
    assert found.header == []
    assert found.lines == [
        "compact",
        "  Accuracy, %               89.95 (89.35–90.52)",
        "  Images/s                  1,294",
        "  Requests/s, shared cores  857",
        "  Note                      float32",
    ]


def test_wide_characters_take_two_columns() -> None:
    found = lay_out(["Image", "Class"], [["猫.png", "cat"], ["a.png", "dog"]])
    assert found.lines == ["猫.png  cat", "a.png   dog"]


def test_a_pipe_has_a_line_for_each_row(capsys) -> None:
    assert print_table(HEADER, ROWS * 2, right=RIGHT) == []
    assert capsys.readouterr().out.count("\n") == 5


def test_a_terminal_wraps_text_between_words(terminal, capsys) -> None:
    print_text("versions: " + "numpy 2.4.6, " * 12, indent=4)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert len(first) <= 80
    assert second.startswith("    ")
    print_table(["File", "Class"], [["holiday/" + "long " * 20 + "name.jpg", "cat"]])
    shown = capsys.readouterr().out
    assert "name.jpg" in shown
    assert "cat" in shown
    assert max(map(len, shown.splitlines())) <= 80
