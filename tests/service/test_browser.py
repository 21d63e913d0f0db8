"""Tests of the page in a real browser, with a real server."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cifar10.environment import EFFICIENCY_FILE, PROJECT_ROOT
from cifar10.images import decode_image
from cifar10.labels import LABELS
from cifar10.store import ModelStore
from tests.conftest import encode
from tests.service.browser import WIDE, Page, start_browser
from tests.service.cases import JPEG, PIXELS, PNG, WEBP
from tests.service.test_serve import Server

PHONE = (360, 740)
PHOTO = encode(np.kron(PIXELS, np.ones((9, 12, 1), np.uint8)), "JPEG")
OTHER = encode(255 - PIXELS, "PNG")


def row(model: str, **known: object) -> dict[str, object]:
    """Return a row of the efficiency table; None for fields not given."""
    names = (
        "digest accuracy accuracy_low accuracy_high test_images latency_p50_ms latency_p99_ms "
        "latency_typical_ms http_requests_per_second size_bytes macs parameters_total "
        "provider dataset"
    )
    start = dict.fromkeys(names.split())
    return {
        **start,
        "model": model,
        "digest": "",
        "pareto": [],
        "notes": [],
        "quick": False,
        **known,
    }


def measured(accuracy: float, latency_ms: float) -> dict[str, object]:
    return {
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.01,
        "accuracy_high": accuracy + 0.01,
        "latency_p50_ms": latency_ms,
        "latency_typical_ms": latency_ms,
        "latency_p99_ms": 2 * latency_ms,
        "provider": "CPUExecutionProvider",
        "size_bytes": 1_500_000,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("page")
    digest = ModelStore(tiny_store).card("tiny_a").sha256
    models = [
        row("tiny_b", **measured(0.91, 3.2), pareto=["latency"], digest="0" * 64),
        row("tiny_a", **measured(0.8, 0.5), pareto=["latency", "size"], digest=digest),
        row("dominated_model", **measured(0.7, 0.9), recipe="d", precision="fp32", seed=0, seeds=2),
        row("another_seed", **measured(0.72, 0.9), recipe="d", precision="fp32", seed=1, seeds=2),
        row("broken", notes=["failed at latency: out of memory", "not the file in `models/`"]),
    ]
    machine = {"name": "m", "conditions": "Measured on a test.", "models": models}
    (home / EFFICIENCY_FILE).write_text(json.dumps({"machines": [machine]}))
    running = Server(home, tiny_store, CIFAR10_RESULTS=str(home))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def driver():
    browser = start_browser()
    yield browser
    browser.quit()


@pytest.fixture
def page(driver, server: Server) -> Iterator[Page]:
    """Open the page. At the end, check that its console is empty and it contacted no other host."""
    page = Page(driver, server.url)
    page.messages(), page.requests()
    page.open()
    yield page
    assert page.messages() == []
    asked = page.requests()
    assert f"{server.url}/" in asked
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []


@pytest.fixture
def file(tmp_path: Path):
    def save(content: bytes, name: str = "picture") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return save


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
        (b"a cat", "That is not a JPEG, PNG or WebP picture."),
        (JPEG[: len(JPEG) // 2], "The picture is damaged and cannot be read."),
        (b"\0" * 11_000_000, "The file is too large. Send a smaller copy of it."),
    ],
    ids=["text", "cut", "large"],
)
def test_a_refusal_is_shown_in_plain_words_and_then_cleared(page, server, file, content, words):
    page.choose(file(content))
    first, detail = page.problem().split("\n")
    assert first == words
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
    html = f"new Response('<html>nginx</html>', {{status: {status}}})"
    page.run(f"window.itsFetch = window.fetch; window.fetch = async () => {html};")
    page.choose(file(PNG))
    assert page.problem().startswith(words)
    assert page.id("again").is_displayed() == again
    page.run("window.fetch = window.itsFetch;")
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
        if reached[-1] == "sample":
            keys.send_keys(Keys.ENTER).perform()
            first = page.answer()
        if reached[-1] == "model":
            keys.send_keys(Keys.ARROW_DOWN).perform()
            page.wait_for(lambda: "Answered by tiny_b" in page.id("ran").text)
            assert page.answer() != first
    assert reached == ["file", "camera", "paste", "sample", "model", "command-box", "copy"]


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


def test_the_efficiency_table_and_its_front(page):
    lines = page.id("machines").find_elements(By.CSS_SELECTOR, "tbody tr")
    cells = [[cell.text for cell in line.find_elements(By.XPATH, "./*")] for line in lines]
    assert cells[0][:3] == [
        "tiny_b\nanother file of this name is served here", "91.00 (90.00–92.00)", "3.2 / 6.4",
    ]  # fmt: skip
    assert cells[1][0] == "tiny_a\nserved here"
    assert [cell[-1] for cell in cells] == ["latency", "latency, size", "–", "–", "–"]
    assert cells[4][0] == "broken\nfailed at latency: out of memory; not the file in models/"
    assert [line.get_attribute("class") for line in lines] == ["front", "front", "", "", ""]
    chart = page.id("machines").find_element(By.TAG_NAME, "svg")
    assert chart.get_attribute("aria-label") == (
        "Accuracy against latency of 3 models. On the Pareto front, fastest first: "
        "tiny_a, 80.00 % at 0.5 ms; tiny_b, 91.00 % at 3.2 ms."
    )
    assert len(chart.find_elements(By.CLASS_NAME, "point")) == 3
    assert len(chart.find_elements(By.CSS_SELECTOR, ".point.front")) == 2
    names = [name.text for name in chart.find_elements(By.TAG_NAME, "text")]
    assert "dominated_model" in names
    assert "another_seed" not in names  # three trainings of one recipe would hide the others
    assert "Measured on a test." in page.id("machines").text
    assert "trained with several seeds, the lowest is drawn" in page.id("machines").text


@pytest.mark.parametrize("size", [WIDE, (390, 844)])
def test_names_in_the_chart_are_complete_and_do_not_overlap(driver, tmp_path, tiny_store, size):
    """Uses all models that this project has measured."""
    server = Server(tmp_path, tiny_store, CIFAR10_RESULTS=str(PROJECT_ROOT / "results"))
    try:
        server.wait_until_ready()
        page = Page(driver, server.url)
        page.open(size)
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
        assert page.id("machines").text == (
            "Not measured yet: cifar10 bench run and cifar10 report fill this table."
        )
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
    assert page.id("bars").accessible_name == "The ten probabilities, highest first"
    assert set(page.bars()) == set(LABELS)
    assert page.id("tile").accessible_name == "The picture as the model sees it"
    assert page.id("model").accessible_name == "Model"
    assert "Choose a picture" in page.id("file").accessible_name


@pytest.mark.parametrize(("preference", "seconds"), [("no-preference", "0.25s"), ("reduce", "0s")])
def test_reduced_motion_is_respected(page, file, preference, seconds):
    page.open(prefers_reduced_motion=preference)
    page.choose(file(PNG))
    page.answer()
    script = (
        "return getComputedStyle(document.querySelector('.track'), '::before').transitionDuration"
    )
    assert page.run(script) == seconds
