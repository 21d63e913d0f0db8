"""Tests of the page in a real browser, with a real server."""

import json
import subprocess

import httpx
import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cifar10.images import decode_image
from tests.conftest import encode
from tests.service.cases import JPEG, PHOTO, PIXELS, PNG, WEBP
from tests.service.page.browser import Page
from tests.service.server import (
    Server,
)

OTHER = encode(255 - PIXELS, "PNG")


def expected(server: Server, image: bytes, model: str = "tiny_a") -> dict[str, str]:
    """Return the bars that the page must show."""
    url = f"{server.url}/classify?top_k=10&model={model}"
    found = httpx.post(url, content=image).json()["top_k"]
    return {entry["label"]: f"{100 * entry['probability']:.1f} %" for entry in found}


def assert_shows(page: Page, server: Server, image: bytes, model: str = "tiny_a") -> None:
    bars = expected(server, image, model)
    best = next(iter(bars))
    page.wait_for(lambda: page.answer() == f"{best}, {bars[best]}")
    assert page.bars() == bars
    assert list(page.bars()) == list(bars)
    assert page.id("problem").text == ""


@pytest.mark.parametrize("image", [JPEG, PNG, WEBP, PHOTO], ids=["jpeg", "png", "webp", "photo"])
def test_an_upload_shows_its_class_and_the_model_s_input(page, server, file, image):
    page.choose(file(image))
    assert_shows(page, server, image)
    np.testing.assert_array_equal(page.tile(), decode_image(image))
    assert page.id("preview").is_displayed()
    page.unfold("timing")
    stages = page.id("stages").find_elements(By.TAG_NAME, "div")
    assert [stage.text.split("\n")[0] for stage in stages] == [
        "Upload", "Decode, resize", "Queue", "Model", "Network, other",
    ]  # fmt: skip
    assert all(float(stage.text.split("\n")[1].removesuffix(" ms")) >= 0 for stage in stages)
    assert "Answered by tiny_a" in page.id("ran").text


def test_a_dropped_file_is_classified(page, server, file):
    place = page.id("drop").rect
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    data = {"items": [], "files": [str(file(PHOTO, "photo.jpg"))], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        page.tell("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)
    page.wait_for(lambda: "over" in page.id("drop").get_attribute("class"))
    page.tell("Input.dispatchDragEvent", type="drop", x=x, y=y, data=data)
    assert_shows(page, server, PHOTO)
    assert "over" not in page.id("drop").get_attribute("class")


@pytest.mark.parametrize("way", ["keys", "button"])
def test_a_pasted_picture_is_classified(page, way):
    """The browser re-encodes the picture for the clipboard, but as a PNG with the same pixels."""
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    page.tell("Browser.grantPermissions", permissions=permissions, origin=page.url)
    page.driver.execute_async_script(
        """
        const [numbers, done] = arguments;
        const blob = new Blob([new Uint8Array(numbers)], {type: "image/png"});
        navigator.clipboard.write([new ClipboardItem({"image/png": blob})]).then(() => done());
        """,
        list(PNG),
    )
    if way == "keys":
        ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("v").key_up(
            Keys.CONTROL
        ).perform()
    else:
        page.id("paste").click()
    page.answer()
    np.testing.assert_array_equal(page.tile(), PIXELS)


def test_pasted_text_is_refused(page, server, file):
    page.choose(file(PNG))
    answer = page.answer()
    page.run(
        """
        const clipboardData = new DataTransfer();
        clipboardData.setData("text/plain", "http://example.invalid/cat.jpg");
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData}));
        """
    )
    assert page.problem() == (
        "What was pasted holds no picture file. Save the picture first, then choose it."
    )
    assert page.answer() == answer  # it is still true


def test_choosing_another_model_classifies_with_it(page, server, file):
    assert page.id("model").get_attribute("value") == "tiny_a"
    page.choose(file(PNG))
    assert_shows(page, server, PNG)
    page.choose_model("tiny_b")
    assert_shows(page, server, PNG, "tiny_b")
    page.unfold("timing")
    assert "Answered by tiny_b" in page.id("ran").text
    assert "of 100 test images right" in page.id("model-facts").text
    page.choose(file(OTHER, "other"))
    assert_shows(page, server, OTHER, "tiny_b")


def test_the_copied_command_gives_the_same_answer(page, server, file):
    file(PHOTO, "photo.jpg")
    page.choose_model("tiny_b")
    page.tell("Browser.grantPermissions", permissions=["clipboardReadWrite"], origin=page.url)
    page.id("copy").click()
    page.wait_for(lambda: page.id("copied").text == "Copied.")
    command = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert command == page.id("command").text
    assert command.startswith("curl ")
    done = subprocess.run(
        ["bash", "-c", command], cwd=file(PNG).parent, capture_output=True, check=True
    )
    answer = json.loads(done.stdout)
    assert (answer["label"], answer["model"]) == (
        next(iter(expected(server, PHOTO, "tiny_b"))),
        "tiny_b",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a cat", "This is text. Send a JPEG, PNG, WebP, AVIF, GIF or BMP."),
        (b"<svg></svg>", "This is SVG, a drawing; send it rendered as PNG."),
        (b"", "This file is empty."),
        (
            b"\0\1\2 a cat",
            "That is not a picture this server reads: send a JPEG, PNG, WebP, AVIF, GIF or BMP.",
        ),
        (JPEG[: len(JPEG) // 2], "The picture is damaged and cannot be read."),
        (b"\0" * 11_000_000, "The file is too large. Send a smaller copy of it."),
    ],
    ids=["text", "drawing", "empty", "unknown", "cut", "large"],
)
def test_a_refusal_is_shown_in_plain_words_and_then_cleared(page, server, file, content, words):
    page.choose(file(content))
    assert page.problem() == f"{words}\nDetails"
    page.run("document.querySelector('#problem details').open = true")
    detail = page.problem().split("\n")[-1]
    assert detail.startswith("The server says: ")
    assert detail.endswith(".")
    assert not page.id("result").is_displayed()
    assert not page.id("again").is_displayed()  # it would say the same
    page.choose(file(PNG, "good"))
    assert_shows(page, server, PNG)


def test_a_request_can_be_retried_when_the_server_is_down(page, server, file):
    limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.tell("Network.enable")
    page.tell("Network.emulateNetworkConditions", offline=True, **limits)
    try:
        page.choose(file(PNG))
        assert page.problem() == "The server cannot be reached."
    finally:
        page.tell("Network.emulateNetworkConditions", offline=False, **limits)
    page.id("again").click()
    assert_shows(page, server, PNG)


@pytest.mark.parametrize(
    ("status", "words", "again"),
    [
        (413, "A proxy in front of the server refuses so large a file.", False),
        (502, "A proxy in front of the server answered with status 502.", True),
    ],
)
def test_a_proxy_s_own_answer_is_recognised(page, server, file, status, words, again):
    html = f"{{ok: false, status: {status}, text: '<html>nginx</html>'}}"
    page.run(f"window.itsSend = window.send; window.send = async () => ({html});")
    page.choose(file(PNG))
    assert page.problem().startswith(words)
    assert page.id("again").is_displayed() == again
    page.run("window.send = window.itsSend;")
    page.choose(file(OTHER, "other"))
    assert_shows(page, server, OTHER)


def test_the_page_works_with_the_keyboard_alone(page):
    """Uses Tab, Enter and arrow keys, and checks that the focus is visible."""
    keys = ActionChains(page.driver)
    reached = []
    while "copy" not in reached:
        keys.send_keys(Keys.TAB).perform()
        reached.append(page.focused())
        shown = page.run(
            "const e = document.activeElement;"
            "return getComputedStyle(e.id === 'file' ? e.parentElement : e).outlineStyle"
        )
        assert shown == "solid", reached
        if len(reached) == 2:
            keys.send_keys(Keys.ENTER).perform()
            first = page.answer()
            page.unfold("timing")
        if reached[-1] == "model":
            keys.send_keys(Keys.ARROW_DOWN).perform()
            page.wait_for(lambda: "Answered by tiny_b" in page.id("ran").text)
            assert page.answer() != first
    assert reached == ["file", *[""] * 10, "camera", "paste", "model", "command-box", "copy"]


def test_a_picture_is_taken_with_the_camera(page):
    dialog = page.id("viewfinder")
    page.id("camera").click()
    page.wait_for(dialog.is_displayed)
    page.wait_for(lambda: page.run("return document.getElementById('video').videoWidth"))
    page.id("shoot").click()
    page.answer()
    assert page.tile().std() > 0
    assert not dialog.is_displayed()
    page.wait_for(lambda: page.run("return document.getElementById('video').srcObject === null"))

    page.id("camera").click()
    page.wait_for(dialog.is_displayed)
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.wait_for(lambda: not dialog.is_displayed())
    page.wait_for(lambda: page.run("return document.getElementById('video').srcObject === null"))
