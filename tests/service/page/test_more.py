"""Tests of the page beyond one answer: verdicts, large, several and example pictures, and more."""

import csv
import gzip
import io

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cifar10.labels import LABELS
from service.status import STATIC
from tests.conftest import encode
from tests.service.cases import JPEG, PHOTO, PIXELS, PNG

PHONE = (390, 844)


HOLD = """
window.itsSend = window.send;
window.held = [];
window.free = new Promise((resolve) => { window.release = resolve; });
window.send = (...all) => {
  const answer = free.then(() => itsSend(...all));
  held.push(answer);
  return answer;
};
"""
"""Holds requests back until ``release()``."""


def large_photo() -> bytes:
    """Return a JPEG of more than 1 MB, whose EXIF says that it lies on its side."""
    pixels = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("image", [PHOTO, encode(np.zeros((1200, 300, 3), np.uint8), "PNG")])
def test_after_an_upload_the_answer_is_in_a_phone_s_viewport(page, file, image):
    page.open(PHONE)
    page.choose(file(image))
    page.answer()
    bottom, scrolled = page.run(
        "return [document.getElementById('said').getBoundingClientRect().bottom, scrollY]"
    )
    assert scrolled == 0
    assert 0 < bottom <= PHONE[1]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("sure", "Cat."),
        ("likely", "Probably a cat."),
        ("unsure", "Not sure: cat or airplane."),
        ("none", "None of the ten, it seems."),
        (None, "cat, 91.0 %"),
    ],
)
def test_the_verdict_is_told_in_words(page, verdict, words):
    page.wait_for(lambda: "airplane" in page.id("classes").text)
    top_k = [{"label": "cat"}, {"label": "airplane"}]
    answer = {"label": "cat", "confidence": 0.91, "top_k": top_k}
    assert page.run("return inWords(arguments[0])", answer | {"verdict": verdict}) == words


def test_a_large_photo_is_turned_and_shrunk_and_that_is_said(page, file):
    page.choose(file(large_photo(), "photo.jpg"))
    page.answer()
    assert page.id("sent").text.startswith("Sent a copy of 576 × 1024 pixels, ")
    page.choose(file(PNG))
    page.wait_for(lambda: page.id("sent").text == "")


def test_a_heic_photo_is_refused_in_words_for_people(page, file):
    page.choose(file(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "IMG_1.heic"))
    problem = page.problem()
    assert problem.startswith(("That is an iPhone HEIC photo", "The picture is damaged"))


def test_several_pictures_are_a_grid_and_a_csv_file(page, file):
    page.choose(file(PNG, "one.png"), file(b"a cat", "two.txt"), file(JPEG, "three.jpg"))
    page.wait_for(lambda: page.id("many-said").text.startswith("3 pictures."))
    cells = page.id("grid").find_elements(By.TAG_NAME, "button")
    assert [cell.text.split("\n")[-1] for cell in cells] == ["one.png", "two.txt", "three.jpg"]
    assert cells[1].text.startswith("This is text. Send a JPEG")
    page.run(
        "window.saved = null; const itself = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; });"
        "return itself.call(URL, blob); }"
    )
    page.id("csv").click()
    text = page.wait_for(lambda: page.run("return window.saved"))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["file"] for line in lines] == ["one.png", "two.txt", "three.jpg"]
    assert [line["label"] in LABELS for line in lines] == [True, False, True]
    assert lines[1]["error"].startswith("This is text. Send a JPEG")
    cells[2].click()
    page.answer()


def test_the_models_are_compared_on_one_picture(page, file):
    page.choose(file(PNG))
    page.answer()
    page.id("compare").click()
    lines = page.wait_for(lambda: page.id("compared").find_elements(By.CSS_SELECTOR, "tbody tr"))
    assert [line.text.split()[0] for line in lines] == ["tiny_a", "tiny_b"]
    assert all(line.text.endswith(" ms") for line in lines)


def test_a_comparison_that_comes_too_late_is_not_shown(page, file):
    page.choose(file(PNG))
    page.answer()
    page.run(HOLD)
    page.id("compare").click()
    page.wait_for(lambda: page.run("return held.length") == 2)
    page.run("window.send = itsSend")
    page.choose(file(JPEG, "other"))
    page.wait_for(lambda: page.run("return document.querySelectorAll('#visited li').length") == 2)
    page.driver.execute_async_script(
        "release(); Promise.all(held).then(() => setTimeout(arguments[0]))"
    )
    assert page.id("compared").text == ""


def test_pictures_chosen_later_replace_those_still_asked(page, file):
    page.run(HOLD)
    page.choose(file(PNG, "one.png"), file(JPEG, "two.jpg"))
    page.wait_for(lambda: page.run("return held.length") == 1)
    page.choose(file(PNG, "three.png"), file(JPEG, "four.jpg"))
    page.wait_for(lambda: page.run("return held.length") == 2)
    page.run("release()")
    page.wait_for(lambda: page.id("many-said").text.startswith("2 pictures."))
    cells = page.id("grid").find_elements(By.TAG_NAME, "button")
    assert [cell.text.split("\n")[-1] for cell in cells] == ["three.png", "four.jpg"]


def test_why_hides_parts_and_shows_which_matter(page, file):
    page.choose(file(encode(PIXELS, "PNG")))
    page.answer()
    page.id("why").click()
    said = page.wait_for(lambda: page.id("because").text.endswith(".") and page.id("because").text)
    assert "depends on it" in said or "No single part matters" in said
    heat = page.id("heat")
    assert heat.is_displayed()
    assert (heat.get_attribute("width"), heat.get_attribute("height")) == ("32", "32")
    page.choose(file(JPEG, "other"))
    page.wait_for(lambda: not heat.is_displayed())


def test_ten_examples_and_the_history_of_this_visit(page):
    examples = page.id("examples").find_elements(By.TAG_NAME, "button")
    assert [one.accessible_name.removeprefix("Example: ") for one in examples] == list(LABELS)
    examples[0].click()
    page.answer()
    assert not page.id("history").is_displayed()
    examples[1].send_keys(Keys.ENTER)
    visited = page.wait_for(
        lambda: (
            (found := page.id("visited").find_elements(By.TAG_NAME, "button"))
            and len(found) == 2
            and found
        )
    )
    visited[1].click()
    page.wait_for(lambda: page.run("return document.querySelectorAll('#visited li').length") == 2)


def test_the_camera_classifies_live(page):
    page.id("camera").click()
    page.wait_for(page.id("viewfinder").is_displayed)
    page.id("live").click()
    page.wait_for(lambda: page.id("live-said").text.endswith(" pictures a second"))
    page.id("live").click()
    assert page.id("live").get_attribute("aria-pressed") == "false"
    page.id("leave").click()
    page.wait_for(lambda: page.run("return document.getElementById('video').srcObject === null"))


def test_the_page_is_small():
    files = [path for path in STATIC.iterdir() if path.name != "openapi.json"]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 150_000
