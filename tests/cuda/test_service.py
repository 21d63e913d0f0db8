"""Tests of the service on a GPU, end to end: a real process and real HTTP."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from bench.serving.process import Server
from cifar10.environment import PROJECT_ROOT
from cifar10.released import RELEASED


@pytest.fixture(scope="module")
def server(device) -> Iterator[Server]:
    models = [RELEASED["cuda"][0], "simple_cnn"]
    with Server(PROJECT_ROOT / "models", load=models, device=device) as running:
        yield running


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_predict_reports_the_device_that_executes(server, device):
    models = httpx.get(f"{server.url}/models").json()["models"]
    assert {model["device"] for model in models} == {device}
    assert len(models) == 2


def test_single_images_at_once(server, device, images):
    """Sixteen clients and every model; each answer equals the one that the image gets alone."""

    def ask(number: int) -> tuple[str, str]:
        name = (RELEASED["cuda"][0], "simple_cnn")[number % 2]
        answer = httpx.post(
            f"{server.url}/classify?model={name}", content=png(images[number]), timeout=30
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["device"], answer.json()["label"]

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(128)))
    assert {one for one, _ in together} == {device}
    assert together[:8] == [ask(number) for number in range(8)]


def test_512_images_in_one_request(server, images):
    buffer = io.BytesIO()
    np.save(buffer, images)
    answer = httpx.post(
        f"{server.url}/classify/batch",
        content=buffer.getvalue(),
        headers={"content-type": "application/x-npy"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == 512


def test_metrics_have_the_gpu(server, device):
    if device != "cuda":
        pytest.skip("a rehearsal: there is no GPU to tell of")
    text = httpx.get(f"{server.url}/metrics").text
    used = [line for line in text.splitlines() if line.startswith("cifar10_gpu_memory_used_bytes{")]
    assert used
    assert float(used[0].split()[-1]) > 100e6
