"""Tests of ``bentoml serve`` as a user starts it, with real processes and a real socket."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from cifar10.images import decode_image
from cifar10.labels import LABELS
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from tests.service.cases import CASES, JPEG, PNG, assert_refused
from tests.service.server import START_SECONDS, Server, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("serve"), tiny_store, CIFAR10_WORKERS="2")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@pytest.fixture
def triton_client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def test_triton_s_client_finds_the_models(triton_client: triton.InferenceServerClient):
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("tiny_a")
    assert triton_client.is_model_ready("tiny_a", "1")
    assert not triton_client.is_model_ready("none")
    assert "binary_tensor_data" in triton_client.get_server_metadata()["extensions"]
    metadata = triton_client.get_model_metadata("tiny_b")
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    with pytest.raises(InferenceServerException, match="no model 'none' is loaded"):
        triton_client.get_model_metadata("none")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("sends_binary", [True, False])
@pytest.mark.parametrize("asks_for", [None, "binary", "json"])
def test_triton_s_client_infers(
    triton_client: triton.InferenceServerClient,
    tiny_store: Path,
    compression: str | None,
    sends_binary: bool,
    asks_for: str | None,
):
    images = np.stack([decode_image(JPEG), decode_image(PNG)] * 20)
    model = ModelStore(tiny_store).load("tiny_b")
    expected = Predictor(model.onnx, PredictorOptions(device="cpu")).predict(images)
    image = triton.InferInput("image", list(images.shape), "UINT8")
    image.set_data_from_numpy(images, binary_data=sends_binary)
    outputs = asks_for and [
        triton.InferRequestedOutput("probabilities", binary_data=asks_for == "binary")
    ]
    result = triton_client.infer(
        "tiny_b",
        [image],
        model_version="1",
        outputs=outputs,
        request_id="seven",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert result.get_response()["id"] == "seven"
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_gets_classes(triton_client: triton.InferenceServerClient, binary: bool):
    images = decode_image(JPEG)[np.newaxis]
    image = triton.InferInput("image", list(images.shape), "UINT8")
    image.set_data_from_numpy(images)
    output = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
    found = triton_client.infer("tiny_a", [image], outputs=[output]).as_numpy("probabilities")
    assert found.shape == (1, 3)
    for entry in found[0]:
        text = entry.decode() if isinstance(entry, bytes) else entry
        value, index, label = text.split(":")
        assert 0 <= float(value) <= 1
        assert LABELS[int(index)] == label


def test_triton_s_client_gets_the_error_message(triton_client: triton.InferenceServerClient):
    image = triton.InferInput("image", [1, 3, 32, 32], "UINT8")
    image.set_data_from_numpy(np.zeros((1, 3, 32, 32), np.uint8))
    with pytest.raises(InferenceServerException, match=r"\[N, 32, 32, 3\]") as caught:
        triton_client.infer("tiny_a", [image])
    assert "400" in str(caught.value.status())


def test_a_server_answers_refuses_counts_and_stops(server: Server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        answer = client.post("/classify", files={"image": ("a.jpg", JPEG)})
        assert answer.status_code == 200
        assert client.post("/classify", content=JPEG).json() == answer.json()

        for case in CASES:
            assert_refused(case, client.request(**case.send_arguments()))
            assert client.post("/classify", content=PNG).status_code == 200

        # New connections reach both workers; the sum must be complete from either.
        for _ in range(20):
            assert httpx.post(f"{server.url}/classify", content=PNG).status_code == 200
        counted = re.compile(r'^cifar10_requests_total\{code="200",route="/classify"\} (.*)$', re.M)

        def total() -> float:
            match = counted.search(httpx.get(f"{server.url}/metrics").text)
            return float(match[1]) if match else 0.0

        expected = 2 + len(CASES) + 20
        wait_for(lambda: total() == expected, "both workers have written their counts")
        assert [total() for _ in range(4)] == [expected] * 4

        assert client.get("/healthz").status_code == 200  # BentoML's own

    assert "Traceback" not in server.log.read_text()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/livez")


def test_a_bad_store_stops_startup_with_one_line(tmp_path: Path):
    server = Server(tmp_path, tmp_path / "nothing")
    try:
        assert server.process.wait(START_SECONDS) != 0
    finally:
        server.kill()
    text = server.log.read_text()
    assert "no model in" in text
    assert "Traceback" not in text
