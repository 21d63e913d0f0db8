"""Drive a headless Chromium that shows the page of a running server."""

import base64
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

WAIT_SECONDS = 60
SCRIPT_SECONDS = 300
"""Limit of one script; axe takes minutes for a long page on a busy machine."""
WIDE = (1200, 900)

_SAID = """
const element = id => document.getElementById(id);
const idle = element("answer").getAttribute("aria-busy") === "false";
return idle && element("result").checkVisibility() ? element("said").innerText.trim() : null;
"""
"""Reads everything at once, because an answer can arrive between several reads."""


def start_browser() -> webdriver.Chrome:
    """Start a browser with a simulated camera. Skips the test if no browser is installed."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip(
            "no browser: the page is tested where chromium and chromedriver are installed "
            "(Debian: apt-get install chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--disable-dev-shm-usage",  # a container's is too small
        "--disable-gpu",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options, Service(driver))
    started.set_script_timeout(SCRIPT_SECONDS)
    return started


class Page:
    """The page from a user's point of view."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def tell(self, command: str, **arguments: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, arguments)

    def emulate(self, size: tuple[int, int] = WIDE, **media: str) -> None:
        """Set the size of the window, and media features such as a dark scheme."""
        features = [
            {"name": name.replace("_", "-"), "value": value} for name, value in media.items()
        ]
        self.tell("Emulation.setEmulatedMedia", features=features)
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size[0] < 600,
        )

    def open(self, size: tuple[int, int] = WIDE, **media: str) -> None:
        """Load the page in a window of ``size``, with media features such as a dark scheme."""
        self.emulate(size, **media)
        self.driver.get(f"{self.url}/")
        self.wait_for(lambda: self.id("model").find_elements(By.TAG_NAME, "option"))
        self.wait_for(lambda: "Reading" not in self.id("served").text)

    def id(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def wait_for(self, condition: Any) -> Any:
        return WebDriverWait(self.driver, WAIT_SECONDS, 0.02).until(lambda _: condition())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def choose(self, *paths: Path) -> None:
        self.id("file").send_keys("\n".join(map(str, paths)))

    def unfold(self, name: str) -> None:
        self.run("document.getElementById(arguments[0]).open = true", name)

    def choose_model(self, name: str) -> None:
        Select(self.id("model")).select_by_visible_text(name)

    def answer(self, after: str | None = None) -> str:
        """Wait for an answer other than ``after`` and return its text."""

        def said() -> str | None:
            text = self.run(_SAID)
            return text if text != after else None

        return str(self.wait_for(said))

    def problem(self) -> str:
        return str(self.wait_for(lambda: self.id("problem").text))

    def bars(self) -> dict[str, str]:
        """Return label → percentage, as displayed."""
        lines = self.id("bars").find_elements(By.TAG_NAME, "li")
        return dict(line.text.split("\n") for line in lines)

    def tile(self) -> NDArray[np.uint8]:
        """Return the pixels of the displayed tile: uint8 (32, 32, 3)."""
        source = self.id("tile").get_attribute("src") or ""
        with Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))) as picture:
            return np.asarray(picture)

    def focused(self) -> str:
        return str(self.run("return document.activeElement.id"))

    def overflows(self) -> bool:
        """Return whether the page scrolls sideways. (A phone's ``innerWidth`` grows on
        overflow.)"""
        root = "document.documentElement"
        return bool(self.run(f"return {root}.scrollWidth > {root}.clientWidth"))

    def messages(self) -> list[str]:
        """Return the console's messages, except the browser's line per refusal by /classify."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if not (entry["source"] == "network" and "/classify?" in entry["message"])
        ]

    def requests(self) -> list[str]:
        """Return the addresses requested since the last call."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
