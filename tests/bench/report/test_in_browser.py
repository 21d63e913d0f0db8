"""Tests of the report in a browser: accessible, as wide as its window, readable on paper."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By

from bench.report.page import render_html
from bench.report.shown import Shown
from tests.service.page.browser import Page, start_browser

_UNFOLD = """
for (const one of document.querySelectorAll("details")) one.open = true;
for (const one of document.querySelectorAll(".more")) one.click();
"""


@pytest.fixture(scope="module")
def opened(filled: list[Shown], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Yield the report of one machine; axe needs minutes for a full one on a busy machine."""
    file: Path = tmp_path_factory.mktemp("browser") / "report.html"
    file.write_text(render_html(filled), encoding="utf-8")
    driver = start_browser()
    yield Page(driver, file.as_uri())
    driver.quit()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1440])
def test_the_report_has_no_barrier_and_never_scrolls_sideways(
    opened: Page, scheme: str, width: int
) -> None:
    opened.emulate((width, 900), prefers_color_scheme=scheme)
    opened.driver.get(opened.url)
    assert not opened.overflows()
    opened.run(_UNFOLD)
    assert not opened.overflows()
    found = Axe().run(opened.driver)["violations"]
    assert not found, json.dumps(
        [{each["id"]: [node["html"] for node in each["nodes"]]} for each in found], indent=1
    )


def test_a_printed_table_has_its_headings_on_every_page(opened: Page) -> None:
    """Chromium repeats the row of headings, but paints no button in the copies."""
    opened.driver.get(opened.url)
    opened.tell("Emulation.setEmulatedMedia", media="print")
    button = opened.driver.find_element(By.CSS_SELECTOR, "thead button")
    assert button.value_of_css_property("display") == "contents"
    opened.tell("Emulation.setEmulatedMedia", media="")


def test_a_link_to_a_section_of_another_machine_shows_it(
    filled: list[Shown], opened: Page, tmp_path: Path
) -> None:
    file = tmp_path / "two.html"
    other = replace(filled[0], models=filled[0].models[:1])
    file.write_text(render_html([filled[0], other]), encoding="utf-8")
    opened.driver.get(file.as_uri())
    last = opened.run("return [...document.querySelectorAll('main > details')].at(-1).id")
    assert last.startswith("machine-2-")
    opened.driver.get("about:blank")
    opened.driver.get(f"{file.as_uri()}#{last}")
    section = opened.id(last)
    opened.wait_for(section.is_displayed)
    assert section.get_attribute("open")
    assert opened.id("tab-machine-2").get_attribute("aria-selected") == "true"
