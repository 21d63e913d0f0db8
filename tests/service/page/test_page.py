"""Tests of the page's files, security policy and efficiency table, and of explanations."""

import base64
import io
import json
import logging
import re

import numpy as np
import pytest
from PIL import Image

from bench.report.build import prepare, render_json
from bench.rows.files import read_results
from bench.rows.selection import released_digests
from cifar10.environment import EFFICIENCY_FILE, PROJECT_ROOT
from cifar10.images import decode_image
from service.page import NOT_MEASURED, read_efficiency
from service.status import STATIC
from tests.conftest import encode
from tests.service.cases import JPEG, PIXELS, PNG, Case, assert_refused
from tests.service.page import picture

PHOTO = encode(np.kron(PIXELS, np.ones((9, 12, 1), np.uint8)), "JPEG")

NAME_OF_SVG = "http://www.w3.org/2000/svg"
"""A name, which nobody fetches."""


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(run):
    async def ask(client):
        page = await client.get("/")
        linked = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
        return page, [await client.get(f"/{path}") for path in linked]

    page, linked = run(ask)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=", page.text)
    assert {response.headers["content-type"] for response in linked} == {
        "text/css; charset=utf-8",
        "text/javascript; charset=utf-8",
    }
    for response in (page, *linked):
        assert response.status_code == 200
        assert response.headers["x-content-type-options"] == "nosniff"
        text = response.text.replace(NAME_OF_SVG, "")
        assert "http://" not in text
        assert "https://" not in text


def test_repeated_answers_of_a_page_are_identical(run):
    """Trace headers of one client must not appear in another's answers."""
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}

    async def ask(client):
        for path in ("/", "/static/page.js"):
            for _ in range(3):
                await client.get(path, headers=trace)
        traced = await client.get("/", headers=trace)
        return traced, [await client.get(path) for path in ("/", "/static/page.js")]

    traced, others = run(ask)
    assert len(traced.headers.get_list("traceparent")) == 1
    assert all("traceparent" not in response.headers for response in others)


def test_every_file_of_the_page_is_served(run):
    files = {path.name for path in STATIC.iterdir() if path.suffix in (".css", ".js")}

    async def ask(client):
        return {name: (await client.get(f"/static/{name}")).content for name in files}

    assert run(ask) == {name: (STATIC / name).read_bytes() for name in files}


def test_the_efficiency_table_is_served_unchanged(tmp_path):
    path = tmp_path / "efficiency.json"
    assert read_efficiency(path) == NOT_MEASURED
    written = b'{"machines": [{"name": "m", "conditions": "c", "models": []}]}\n'
    path.write_bytes(written)
    assert read_efficiency(path) == written


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"machines": 1}', b"\xff"])
def test_an_invalid_efficiency_table_is_logged_and_not_served(tmp_path, caplog, text):
    path = tmp_path / "efficiency.json"
    path.write_bytes(text)
    with caplog.at_level(logging.ERROR):
        assert read_efficiency(path) == NOT_MEASURED
    assert str(path) in caplog.text


def test_a_server_without_a_table_says_so(run):
    answer, refused = run(
        lambda client: _both(client.get("/efficiency"), client.get("/efficiency?machine=a"))
    )
    assert answer.json() == {"machines": []}
    assert_refused(Case("", 400, "malformed"), refused)


async def _both(one, other):
    return await one, await other


@pytest.mark.parametrize("image", [PNG, JPEG, PHOTO], ids=["png", "jpeg", "photo"])
@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
def test_an_explanation_has_the_exact_tile_and_every_stage(run, image, form):
    body = {"files": {"image": image}} if form else {"content": image}

    async def ask(client):
        plain = await client.post("/classify?model=tiny_b&top_k=10", **body)
        told = await client.post("/classify?model=tiny_b&top_k=10&explain=true", **body)
        silent = await client.post("/classify?model=tiny_b&top_k=10&explain=false", **body)
        return plain.json(), told.json(), silent.json()

    plain, told, silent = run(ask)
    assert "explanation" not in plain
    assert silent == plain
    explanation = told.pop("explanation")
    assert told == plain
    with Image.open(io.BytesIO(base64.b64decode(explanation["tile_png"]))) as tile:
        np.testing.assert_array_equal(np.asarray(tile), decode_image(image))
    timing = explanation["timing_ms"]
    assert list(timing) == ["body", "decode", "queue", "inference", "total"]
    total = timing.pop("total")
    assert timing["inference"] > 0
    assert min(timing.values()) >= 0
    assert sum(timing.values()) <= total
    assert explanation["batch_images"] == 1


def test_batches_are_not_explained(run):
    response = run(lambda client: client.post("/classify/batch?explain=true", files={"image": PNG}))
    assert_refused(Case("", 400, "malformed"), response)


def test_the_committed_table_matches_the_rows():
    """The efficiency table is the only file that ``bench`` passes to ``service``."""
    results = PROJECT_ROOT / "results"
    table = json.loads(read_efficiency(results / EFFICIENCY_FILE))
    assert table == json.loads(
        render_json(
            prepare(read_results(results), results, released_digests(PROJECT_ROOT / "models"))
        )
    )
    assert table["machines"]


def test_the_picture_of_the_page_was_made_from_its_files():
    assert picture.digest_in(picture.PICTURE) == picture.digest(), (
        "docs/page.png is stale: python -m tests.service.page.picture"
    )
    assert picture.PICTURE.stat().st_size < 150_000
