"""The table of settings in the documentation is the one that the code makes."""

import pytest

from cifar10.environment import PROJECT_ROOT
from cifar10.errors import SettingsError
from service.settings import Settings
from service.settings_table import BEGIN, END, settings_table, with_table

WITH_TABLE = [
    path
    for path in (PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md")))
    if BEGIN in path.read_text()
]


def test_the_documented_settings_match_the_code():
    assert len(WITH_TABLE) == 1
    text = WITH_TABLE[0].read_text()
    remedy = f"run: python -m service.settings_table {WITH_TABLE[0].relative_to(PROJECT_ROOT)}"
    assert with_table(text) == text, remedy


def test_every_setting_says_what_it_is():
    lines = settings_table().splitlines()
    assert len(lines) == 2 + len(Settings.model_fields)
    assert len({len(line) for line in lines}) == 1
    assert all(cell.strip() for line in lines for cell in line.strip("|").split("|"))
    assert "| `CIFAR10_MAX_BODY_BYTES`    | largest request body " in settings_table()
    assert [line.split("|")[3].strip() for line in lines if "MAX_" in line] == [
        "10 MiB",
        "64,000,000",
        "24,000,000",
        "32",
        "512",
        "1,000",
    ]
    assert "JPEG in several scans" in settings_table()


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_both_markers_is_refused(text: str):
    with pytest.raises(SettingsError, match="each once"):
        with_table(text)


def test_the_table_takes_the_place_of_what_was_between_the_markers():
    text = with_table(f"before\n\n{BEGIN}\n| old |\n{END}\n\nafter\n")
    assert text == f"before\n\n{BEGIN}\n{settings_table()}{END}\n\nafter\n"
