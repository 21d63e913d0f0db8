"""Tests of what people do with the page besides choosing a picture: they drop folders, send huge or
many pictures, open the CSV in a spreadsheet, and meet servers that are busy or ask for a token."""

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from tests.service.cases import JPEG, PNG
from tests.service.page.browser import Page
from tests.service.server import Server

TOKEN = "a-token"
BUSY = (
    '{"type": "urn:problem-type:cifar10:rate-limited", "status": 429, "title": "Too many",'
    ' "detail": "wait"}'
)


def drop(page: Page, *paths: Path) -> None:
    place = page.id("drop").rect
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.tell("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)


def cells_of_grid(page: Page, count: int) -> list[list[str]]:
    """Wait for ``count`` pictures and return the lines of each."""
    page.wait_for(lambda: page.id("many-said").text.startswith(f"{count} pictures."))
    cells = page.id("grid").find_elements(By.TAG_NAME, "button")
    return [cell.text.split("\n") for cell in cells]


def test_the_pictures_of_a_dropped_folder_are_classified(page, file, tmp_path):
    folder = tmp_path / "holiday"
    (folder / "more").mkdir(parents=True)
    (folder / "one.png").write_bytes(PNG)
    (folder / "more" / "two.JPG").write_bytes(JPEG)
    (folder / "._one.png").write_bytes(b"\0\5")
    (folder / "Thumbs.db").write_bytes(b"\0")
    drop(page, folder, file(JPEG, "beside.jpg"))
    names = [lines[-1] for lines in cells_of_grid(page, 3)]
    assert sorted(names) == ["beside.jpg", "one.png", "two.JPG"]


def test_a_dropped_folder_without_pictures_is_told(page, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("a")
    drop(page, tmp_path / "letters")
    assert page.problem() == "There is no picture in the folder letters."


def test_a_small_file_of_too_many_pixels_is_shrunk_by_the_page(page, file):
    """A file below the size from which the page shrinks."""
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000), 90).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 1_000_000
    page.choose(file(buffer.getvalue(), "scan.png"))
    page.answer()
    assert page.id("sent").text.startswith("Sent a copy of 1024 × 1024 pixels, ")
    page.id("compare").click()
    lines = page.wait_for(lambda: page.id("compared").find_elements(By.CSS_SELECTOR, "tbody tr"))
    assert all(line.text.endswith(" ms") for line in lines)


def test_a_file_name_is_no_formula_in_the_csv_and_umlauts_are_readable(page, file):
    names = ['=cmd("calc").png', "größe.png", "-1.png", "plain.png"]
    page.choose(*(file(PNG, name) for name in names))
    cells_of_grid(page, 4)
    page.run(
        "window.saved = null; const itself = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { const reader = new FileReader();"
        "reader.onload = () => { window.saved = reader.result; }; reader.readAsDataURL(blob);"
        "return itself.call(URL, blob); }"
    )
    page.id("csv").click()
    address = page.wait_for(lambda: page.run("return window.saved"))
    content = base64.b64decode(address.partition("base64,")[2])
    assert content.startswith(b"\xef\xbb\xbf")  # so that Excel reads it as UTF-8
    lines = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert [line["file"] for line in lines] == [
        '\'=cmd("calc").png', "größe.png", "'-1.png", "plain.png",
    ]  # fmt: skip


def test_a_long_file_name_is_cut_and_whole_in_its_title(page, file):
    name = "a very long name " * 12 + ".png"
    page.choose(file(PNG, name), file(JPEG, "b.jpg"))
    cells_of_grid(page, 2)
    button, short = page.id("grid").find_elements(By.TAG_NAME, "button")
    assert button.get_attribute("title") == name
    assert button.rect["height"] < 1.6 * short.find_element(By.TAG_NAME, "img").rect["height"] + 90


REFUSE = """
window.itsSend = window.send;
window.refused = 0;
window.send = (...all) => refused++ %% 2 ? itsSend(...all)
  : Promise.resolve({ok: false, status: 429, text: %r, wait: 0.01});
"""
"""Refuses every other request."""


def test_a_rate_limit_is_told_and_can_be_tried_again(page, file):
    page.run(REFUSE % BUSY)
    page.choose(file(PNG))
    assert page.problem().startswith("Too many pictures were sent from here in a short time.")
    page.id("again").click()
    page.answer()


def test_several_pictures_wait_for_a_busy_server(page, file):
    page.run(REFUSE % BUSY)
    page.choose(file(PNG, "one.png"), file(JPEG, "two.jpg"))
    cells = cells_of_grid(page, 2)
    assert page.run("return refused") == 4
    assert not any("Too many" in line for lines in cells for line in lines)


@pytest.fixture
def locked(driver, tmp_path: Path, tiny_store: Path) -> Iterator[Page]:
    """The page of a server that asks for a token."""
    server = Server(tmp_path, tiny_store, CIFAR10_TOKEN=TOKEN)
    try:
        server.wait_until_ready()
        page = Page(driver, server.url)
        page.emulate()
        driver.get(f"{server.url}/")
        yield page
    finally:
        server.kill()
        page.messages(), page.requests()


def test_the_page_asks_for_the_token_of_a_server_and_uses_it(locked, file):
    page = locked
    page.wait_for(lambda: page.id("classes").text == "This server asks for a token.")
    page.id("token").send_keys("wrong\n")
    page.wait_for(lambda: page.id("classes").text == "The server does not accept this token.")
    page.id("token").clear()
    page.id("token").send_keys(f"{TOKEN}\n")
    page.wait_for(lambda: page.id("classes").text.startswith("One of ten things"))
    assert not page.id("access").is_displayed()
    assert '-H "Authorization: Bearer $TOKEN"' in page.id("command").text
    page.choose(file(PNG))
    page.answer()
    page.id("why").click()
    page.wait_for(lambda: page.id("because").text.endswith("."))
    assert "could not" not in page.id("because").text
    page.driver.get(f"{page.url}/models/tiny_a")
    page.wait_for(lambda: page.id("title").text == "tiny_a")
    page.run("sessionStorage.clear()")
    page.driver.refresh()
    page.wait_for(lambda: "asks for a token" in page.id("about").text)
    link = page.id("about").find_element(By.TAG_NAME, "a")
    assert link.get_attribute("href") == f"{page.url}/"
