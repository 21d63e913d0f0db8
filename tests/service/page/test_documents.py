"""Tests of the API page and of the pages of models, in a browser and by their media types."""

import json

import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By

from tests.service.cases import PNG
from tests.service.mixed import mixed_store
from tests.service.page.browser import Page
from tests.service.server import Server

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_an_operation_is_tried_on_the_api_page(page, server, file):
    page.driver.get(f"{server.url}/docs#classify")
    operation = page.wait_for(lambda: page.driver.find_elements(By.ID, "classify"))[0]
    page.wait_for(lambda: operation.get_attribute("open") is not None)
    page.id("classify-model").send_keys("tiny_b")
    page.id("classify-body").send_keys(str(file(PNG)))
    operation.find_element(By.TAG_NAME, "button").click()
    answer = operation.find_element(By.TAG_NAME, "pre")
    page.wait_for(answer.is_displayed)
    command, _, told = answer.text.partition("\n\n")
    assert command == (
        f"curl -X POST --data-binary @picture.jpg '{server.url}/classify?model=tiny_b'"
    )
    status, _, document = told.partition("\n")
    assert status.startswith("200 ")
    assert json.loads(document)["model"] == "tiny_b"
    described = json.loads(page.run("return JSON.stringify(Object.keys(description.paths))"))
    shown = [one.text for one in page.driver.find_elements(By.CSS_SELECTOR, "summary code")]
    assert {line.split()[1] for line in shown} == set(described)
    page.driver.get(f"{server.url}/")


@pytest.mark.parametrize("path", ["docs", "models", "models/tiny_a"])
@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1200, "light")])
def test_documents_have_no_barrier_and_never_scroll_sideways(page, server, path, width, scheme):
    page.open((width, 740), prefers_color_scheme=scheme)
    page.driver.get(f"{server.url}/{path}")
    page.wait_for(lambda: page.driver.find_elements(By.CLASS_NAME, "card"))
    found = Axe().run(page.driver)["violations"]
    assert [one["id"] for one in found] == []
    assert not page.overflows()
    page.driver.get(f"{server.url}/")


def test_a_model_s_page_tells_its_use_limits_classes_and_digest(page, server):
    page.driver.get(f"{server.url}/models")
    page.wait_for(lambda: page.driver.find_elements(By.LINK_TEXT, "tiny_b"))[0].click()
    text = page.wait_for(lambda: page.id("model").text)
    assert "Pictures whose main subject is one of: airplane, " in text
    assert "SHA-256" in text
    assert "how much less was not measured" in text
    page.driver.get(f"{server.url}/models/tiny_a")
    text = page.wait_for(lambda: page.id("model").text)
    assert "right on 50.0 % of 388 other images of its classes (photographs; 95 %" in text
    assert "it is right on 60.0 %." in text
    assert "25.0 % of 191 such pictures got one" in text
    page.driver.get(f"{server.url}/")


def test_browsers_get_a_page_of_models_and_programs_get_json(run):
    async def ask(client):
        paths = ("/models", "/models/tiny_a", "/models/nothing")
        return [(await client.get(path, headers=BROWSER), await client.get(path)) for path in paths]

    found = run(ask)
    for page, _ in found:
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["vary"] == "accept"
    assert 'src="static/models.js"' in found[0][0].text
    assert 'src="../static/models.js"' in found[1][0].text
    assert [document.status_code for _, document in found] == [200, 200, 404]
    assert [document.headers.get("vary") for _, document in found] == ["accept", "accept", None]
    assert found[0][1].json()["default"] == "tiny_a"


def test_auto_and_its_two_models_are_told_of(driver, tmp_path):
    server = Server(tmp_path, mixed_store(tmp_path / "models"), CIFAR10_DEFAULT_MODEL="auto")
    try:
        server.wait_until_ready()
        page = Page(driver, server.url)
        page.open()
        page.wait_for(lambda: page.id("classes").text.startswith("One of ten things, or none"))
        for path, link in (("models", "flowers"), ("models/auto", "compact_int8")):
            driver.get(f"{server.url}/{path}")
            links = page.wait_for(lambda link=link: driver.find_elements(By.LINK_TEXT, link))
            assert "64 pixels and more are answered by photo" in page.id("about").text
            links[0].click()
            page.wait_for(lambda link=link: page.id("title").text == link)
            assert "SHA-256" in page.id("model").text
    finally:
        server.kill()
