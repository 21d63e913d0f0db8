"""Tests of the page: self-contained, escaped, the verdict first, and what is recommended."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from bench.report.efficiency import COLUMNS
from bench.report.page import inline, render_html, to_html
from bench.report.shown import Shown
from bench.report.verdict import BUDGETS, pick_for_budgets
from bench.rows.files import Recorder
from bench.rows.kinds.accuracy import AccuracyMeasurement
from bench.rows.packed import pack_hits
from tests.bench.conftest import accuracy, add_all, cost, latency
from tests.bench.report.conftest import reports


@pytest.fixture(scope="module")
def page(filled: list[Shown]) -> str:
    return render_html(filled)


class Checker(HTMLParser):
    """Counts what a browser would build; unclosed elements are errors."""

    VOID = ("meta", "link", "br", "img", "use", "path", "rect", "image", "line", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.identifiers: list[str] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.identifiers += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.identifiers += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_self_contained(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.seen["svg"] >= 12
    assert len(checker.identifiers) == len(set(checker.identifiers))
    assert not re.search(r"(?:https?:)?//[a-z]|@import|url\((?!#|\"?data:)", page.lower())
    for source in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert source == "data:," or source.removeprefix("#") in checker.identifiers


def test_measured_text_is_escaped(page: str) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; more" in page


def test_the_answer_comes_first(page: str) -> None:
    body = page[page.index("<body>") :]
    assert body.index("<h1>Ship <code>good</code></h1>") < body.index("<table")
    assert "<strong>90.00 %</strong>" in body[: body.index("<table")]
    assert "No other released model is as accurate." in body
    assert body.index("<table") < body.index("<details")


def test_every_heading_of_the_table_is_a_button_that_sorts(page: str) -> None:
    table = page[page.index('<table class="main">') :]
    table = table[: table.index("</table>")]
    assert table.count('<th scope="col"') == table.count('<button type="button">') == len(COLUMNS)


def test_what_is_missing_is_said(page: str) -> None:
    assert "not available on this machine" in page
    assert "<code>bench/peers</code> has not been measured" in page


def test_markdown_cannot_hold_markup() -> None:
    assert to_html("One **`a<b`** & <b>c</b>\n\n- x\n  y\n") == (
        "<p>One <strong><code>a&lt;b</code></strong> &amp; &lt;b&gt;c&lt;/b&gt;</p>\n"
        "<ul>\n<li>x\ny</li>\n</ul>\n"
    )


def of_hits(right: np.ndarray) -> AccuracyMeasurement:
    return replace(accuracy(int(right.sum()), len(right)), hits=pack_hits(right))


def test_of_equally_accurate_models_the_cheapest_is_shipped(recorder: Recorder) -> None:
    """``big`` leads ``small`` by 10 of 10,000 images, 30 to 20: chance. ``weak`` is below the
    floor."""
    images = np.arange(10_000)
    big, small, weak = images < 9_000, images < 9_000, images < 8_400
    small = small & ~(images < 30) | ((images >= 9_000) & (images < 9_020))
    add_all(recorder, "big", "a" * 64, cost(), of_hits(big), latency(900_000))
    add_all(recorder, "small", "b" * 64, cost(size=900_000), of_hits(small), latency(500_000))
    add_all(recorder, "weak", "c" * 64, cost(size=90_000), of_hits(weak), latency(100_000))
    picks = pick_for_budgets(reports(recorder)[0].models)
    assert [pick.model.model for pick in picks if pick.model] == ["small"] * len(BUDGETS)
    assert [one.model for one in picks[-1].as_accurate] == ["big"]
    said = render_html(reports(recorder))
    assert "<h1>Ship <code>small</code></h1>" in said


def test_a_model_below_every_floor_is_named_and_not_recommended(recorder: Recorder) -> None:
    add_all(recorder, "poor", "a" * 64, cost(), accuracy(6_000), latency(20_000_000))
    said = render_html(reports(recorder))
    assert "<h1>No released model measured here reaches 85 %</h1>" in said
    assert "nothing measured fits" in said  # 20 ms is over both limits
    assert "none (nearest: <code>poor</code>)" in said


def test_a_model_with_random_weights_is_not_recommended(recorder: Recorder) -> None:
    add_all(recorder, "heavy", "a" * 64, cost(random_weights=True))
    assert (
        "<h1>No released model has an accuracy and a latency on this machine</h1>"
        in render_html(reports(recorder))
    )


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("~~306: 21 ms~~; 217", "<s>306: 21 ms</s>; 217"),
        ("*Unstable*: apart", "<em>Unstable</em>: apart"),
        ("605* and 700* of 2 * 3", "605* and 700* of 2 * 3"),
        ("**bold `*code*`**", "<strong>bold <code>*code*</code></strong>"),
    ],
)
def test_marks_of_our_markdown(markdown: str, html: str) -> None:
    assert inline(markdown) == html
