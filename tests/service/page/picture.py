"""Make the README's picture of the page: ``python -m tests.service.page.picture``.

The picture carries a digest of the page's files, so a test tells when it is stale without comparing
pixels, which depend on a machine's fonts.
"""

import base64
import hashlib
import io
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from selenium.webdriver.common.by import By

from cifar10.environment import PROJECT_ROOT
from service.status import STATIC
from tests.service.page.browser import Page, start_browser
from tests.service.server import Server

PICTURE: Final = PROJECT_ROOT / "docs" / "page.png"
SIZE: Final = (1120, 620)
_SOURCES: Final = ("index.html", "page.css", "page.js", "examples.js")
_KEY: Final = "Sources"
_COLOURS: Final = 128


def digest() -> str:
    """Return the digest of the files that the picture shows."""
    content = b"".join((STATIC / name).read_bytes() for name in _SOURCES)
    return hashlib.sha256(content).hexdigest()[:16]


def digest_in(path: Path) -> str | None:
    """Return the digest of the files that a picture was made from."""
    with Image.open(path) as picture:
        found = picture.info.get(_KEY)
    return str(found) if found else None


def main() -> None:
    """Start a server and a browser, choose an example, and save the picture."""
    with tempfile.TemporaryDirectory() as home:
        server = Server(
            Path(home),
            PROJECT_ROOT / "models",
            CIFAR10_RESULTS=str(PROJECT_ROOT / "results"),
            CIFAR10_DEFAULT_MODEL="compact_int8",
        )
        try:
            server.wait_until_ready()
            driver = start_browser()
            page = Page(driver, server.url)
            page.tell("Emulation.setScrollbarsHidden", hidden=True)
            page.open(SIZE)
            page.wait_for(lambda: "cat" in page.id("classes").text)
            page.id("examples").find_elements(By.TAG_NAME, "button")[3].click()
            page.answer()
            shot = page.tell("Page.captureScreenshot", format="png")["data"]
            driver.quit()
        finally:
            server.kill()
    information = PngInfo()
    information.add_text(_KEY, digest())
    with Image.open(io.BytesIO(base64.b64decode(shot))) as picture:
        small = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        small.save(PICTURE, optimize=True, pnginfo=information)


if __name__ == "__main__":
    main()
