"""Tests of the page's table, chart, layout and accessibility in a real browser."""

import json

import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By

from cifar10.environment import EFFICIENCY_FILE, PROJECT_ROOT
from cifar10.labels import LABELS
from tests.service.cases import PHOTO, PNG
from tests.service.page.browser import WIDE, Page
from tests.service.server import (
    Server,
)

PHONE = (360, 740)


def test_the_efficiency_table_and_its_front(page):
    page.unfold("all")
    lines = page.id("machines").find_elements(By.CSS_SELECTOR, "tbody tr")
    cells = [[cell.text for cell in line.find_elements(By.XPATH, "./*")] for line in lines]
    assert cells[0][:3] == [
        "tiny_b\nanother file of this name is served here", "91.00 (90.00–92.00)", "3.20 / 6.40",
    ]  # fmt: skip
    assert cells[1][0] == "tiny_a\nserved here"
    assert [cell[-1] for cell in cells] == ["latency", "latency, size", "–", "–", "–"]
    assert cells[4][0] == "broken\nfailed at latency: out of memory; not the file in models/"
    assert [line.get_attribute("class") for line in lines] == ["front", "front", "", "", ""]
    chart = page.id("machines").find_element(By.TAG_NAME, "svg")
    assert chart.get_attribute("aria-label") == (
        "Accuracy against latency of 3 models. On the Pareto front, fastest first: "
        "tiny_a, 80.00 % at 0.500 ms; tiny_b, 91.00 % at 3.20 ms."
    )
    assert len(chart.find_elements(By.CLASS_NAME, "point")) == 3
    assert len(chart.find_elements(By.CSS_SELECTOR, ".point.front")) == 2
    names = [name.text for name in chart.find_elements(By.TAG_NAME, "text")]
    assert "dominated_model" in names
    assert "another_seed" not in names  # three trainings of one recipe would hide the others
    assert "Measured on a test." in page.id("machines").text
    assert "trained with several seeds, the lowest is drawn" in page.id("machines").text


def test_only_served_models_stand_in_the_first_table_and_a_click_chooses(page):
    lines = page.id("served").find_elements(By.CSS_SELECTOR, "tbody tr")
    assert [line.text.split()[0] for line in lines] == ["tiny_a", "tiny_b"]
    assert [line.get_attribute("class") for line in lines] == ["chosen", ""]
    lines[1].find_element(By.TAG_NAME, "button").click()
    page.wait_for(lambda: page.id("model").get_attribute("value") == "tiny_b")
    assert [line.get_attribute("class") for line in lines] == ["", "chosen"]


@pytest.mark.parametrize("size", [WIDE, (390, 844)])
def test_names_in_the_chart_are_complete_and_do_not_overlap(driver, tmp_path, tiny_store, size):
    """Uses all models that this project has measured."""
    server = Server(tmp_path, tiny_store, CIFAR10_RESULTS=str(PROJECT_ROOT / "results"))
    try:
        server.wait_until_ready()
        page = Page(driver, server.url)
        page.open(size)
        page.unfold("all")
        page.wait_for(lambda: page.run("return document.querySelector('.chart svg')"))
        charts = page.run(
            """
            return [...document.querySelectorAll(".chart svg")].map(chart => {
                const boxes = selector => [...chart.querySelectorAll(selector)].map(element => {
                    const {x, y, width, height} = element.getBBox();
                    return [element.textContent, x, y, x + width, y + height];
                });
                return [chart.viewBox.baseVal.width, boxes("text"), boxes(".point")];
            });
            """
        )
    finally:
        server.kill()
    assert charts
    models = {
        model["model"]
        for machine in json.loads((PROJECT_ROOT / "results" / EFFICIENCY_FILE).read_text())[
            "machines"
        ]
        for model in machine["models"]
    }
    for width, texts, points in charts:
        names = [text for text in texts if text[0] in models]
        assert len(names) >= 4
        for index, (_, left, top, right, bottom) in enumerate(names):
            assert left >= 0
            assert right <= width + 1
            for _, *other in [*names[index + 1 :], *points]:
                apart = max(other[0] - right, left - other[2], other[1] - bottom, top - other[3])
                assert apart > -2


def test_an_unreadable_table_is_shown_as_not_measured(driver, tmp_path, tiny_store):
    (tmp_path / EFFICIENCY_FILE).write_text("{")
    server = Server(tmp_path, tiny_store, CIFAR10_RESULTS=str(tmp_path))
    try:
        server.wait_until_ready()
        page = Page(driver, server.url)
        page.open()
        assert (
            "Not measured yet: cifar10 bench run and cifar10 report fill this table."
            in page.id("served").text
        )
        assert not page.id("all").is_displayed()
    finally:
        server.kill()
    assert "cannot be shown" in server.log.read_text()


@pytest.mark.parametrize("width", [320, 360, 800, 1200])
def test_the_page_never_scrolls_sideways(page, file, width):
    page.open((width, 740))
    assert not page.overflows()
    page.choose(file(PHOTO))
    page.answer()
    assert not page.overflows()
    assert page.id("tile").is_displayed()
    page.choose(file(b"a cat" * 200, "bad"))
    page.problem()
    assert not page.overflows()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_no_accessibility_barrier(page, file, scheme, size):
    """Checks roles, names, contrast and more: https://github.com/dequelabs/axe-core"""
    page.open(size, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    luminance = page.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(luminance) < 128) == (scheme == "dark")
    axe = Axe()

    def assert_no_barrier() -> None:
        found = axe.run(page.driver)["violations"]
        assert not found, json.dumps(
            [{each["id"]: [node["html"] for node in each["nodes"]]} for each in found], indent=1
        )

    assert_no_barrier()
    page.choose(file(PNG))
    page.answer()
    assert_no_barrier()
    page.choose(file(b"a cat", "bad"))
    page.problem()
    assert_no_barrier()
    page.id("camera").click()
    page.wait_for(page.id("viewfinder").is_displayed)
    assert_no_barrier()


def test_results_are_announced_to_screen_readers(page, file):
    roles = {name: page.id(name).get_attribute("role") for name in ("said", "problem", "copied")}
    assert roles == {"said": "status", "problem": "alert", "copied": "status"}
    page.choose(file(PNG))
    page.answer()
    assert page.id("bars").aria_role == "list"
    assert page.id("bars").accessible_name == "The probabilities, highest first"
    assert set(page.bars()) == set(LABELS)
    assert page.id("tile").accessible_name == "The picture as the model sees it"
    assert page.id("model").accessible_name == "Model"
    assert "Choose pictures" in page.id("file").accessible_name


@pytest.mark.parametrize(("preference", "seconds"), [("no-preference", "0.25s"), ("reduce", "0s")])
def test_reduced_motion_is_respected(page, file, preference, seconds):
    page.open(prefers_reduced_motion=preference)
    page.choose(file(PNG))
    page.answer()
    script = (
        "return getComputedStyle(document.querySelector('.track'), '::before').transitionDuration"
    )
    assert page.run(script) == seconds
