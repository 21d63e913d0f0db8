"""The service's answers and refusals, in process."""

import json

import httpx
import numpy as np
import pytest

from cifar10.images import decode_image
from cifar10.labels import LABELS
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ModelStore
from service import inference as inference_module
from service.status import STATIC
from tests.conftest import encode
from tests.service.cases import CASES, JPEG, PIXELS, PNG, WEBP, Case, assert_refused, form


@pytest.mark.parametrize("image", [PNG, JPEG, WEBP], ids=["png", "jpeg", "webp"])
@pytest.mark.parametrize("name", ["tiny_a", "tiny_b"])
def test_an_image_gets_the_answer_of_the_predictor(run, tiny_store, image, name):
    stored = ModelStore(tiny_store).load(name)
    predictor = Predictor(stored.onnx, PredictorOptions(device="cpu"))
    expected = predictor.predict(decode_image(image)[np.newaxis])[0]
    best = int(expected.argmax())

    async def post(client):
        url = f"/classify?model={name}&top_k=10"
        raw = await client.post(url, content=image)
        part = await client.post(url, files={"image": ("a", image)})
        return raw, part

    for response in run(post):
        answer = response.json()
        assert response.status_code == 200
        assert answer["label"] == LABELS[best]
        assert answer["class_id"] == best
        assert answer["confidence"] == pytest.approx(float(expected[best]), abs=1e-6)
        assert (answer["model"], answer["digest"]) == (name, stored.card.sha256)
        assert answer["device"] == "cpu"
        probabilities = [entry["probability"] for entry in answer["top_k"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert {entry["class_id"] for entry in answer["top_k"]} == set(range(10))
        assert answer["top_k"][0]["label"] == LABELS[best]


def test_curl_data_binary_which_calls_its_body_a_form(run):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = run(lambda client: client.post("/classify", content=JPEG, headers=headers))
    assert response.status_code == 200


def test_the_bytes_decide_the_type_and_not_the_header(run):
    headers = {"content-type": "image/png"}
    response = run(lambda client: client.post("/classify", content=JPEG, headers=headers))
    assert response.status_code == 200


@pytest.mark.parametrize(("query", "count"), [("", 3), ("?top_k=1", 1), ("?top_k=10", 10)])
def test_top_k(run, query, count):
    response = run(lambda client: client.post(f"/classify{query}", content=PNG))
    assert len(response.json()["top_k"]) == count


def test_a_large_photo_is_answered(run):
    photo = encode(np.tile(PIXELS, (40, 40, 1)), "JPEG")
    flat = encode(np.zeros((2000, 2000, 3), np.uint8), "PNG")  # few bytes, many pixels
    assert len(photo) > inference_module.INLINE_BYTES > len(flat)

    async def ask(client):
        return [await client.post("/classify", content=image) for image in (photo, flat)]

    assert [response.status_code for response in run(ask)] == [200, 200]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refusals(run, case: Case):
    assert_refused(case, run(lambda client: client.request(**case.send_arguments())))


def test_an_unknown_model_gets_the_list(run):
    response = run(lambda client: client.post("/classify?model=resnet", content=PNG))
    assert response.json()["models"] == ["tiny_a", "tiny_b"]


def test_405_says_what_is_allowed(run):
    async def ask(client):
        return await client.get("/classify"), await client.post("/models")

    classify, models = run(ask)
    assert classify.headers["allow"] == "POST"
    assert models.headers["allow"] == "GET, HEAD"


def test_a_defect_is_a_500_problem_and_a_log_line_without_the_image(run, monkeypatch, caplog):
    def fail(*_):
        message = "defect"
        raise RuntimeError(message)

    monkeypatch.setattr(inference_module, "extract_image", fail)
    response = run(lambda client: client.post("/classify", content=PNG))
    assert_refused(Case("", 500, "internal"), response)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.context == {"instance": response.json()["instance"], "route": "/classify"}
    assert "defect" not in response.text


def test_models(run, tiny_store):
    card = ModelStore(tiny_store).card("tiny_b")

    async def ask(client):
        urls = ("/models", "/models/tiny_b", "/models/none", "/models/", "/models/a/b")
        return [await client.get(url) for url in urls]

    listed, shown, *missing = run(ask)
    assert listed.json()["default"] == "tiny_a"
    assert [model["name"] for model in listed.json()["models"]] == ["tiny_a", "tiny_b"]
    assert [model["default"] for model in listed.json()["models"]] == [True, False]
    model = shown.json()
    assert (model["digest"], model["device"]) == (card.sha256, "cpu")
    assert model["provider"] == model["providers"][0] == "CPUExecutionProvider"
    assert model["card"]["sha256"] == card.sha256
    assert model["card"]["labels"] == list(LABELS)
    for response in missing:
        assert_refused(Case("", 404, "no-such-model"), response)


def test_openapi_names_every_address_and_no_other(edge, run):
    paths = json.loads((STATIC / "openapi.json").read_bytes())["paths"]
    routes = edge.routes
    assert {(path, method.upper()) for path, item in paths.items() for method in item} == {
        (route.template, route.method) for route in routes
    }
    assert run(lambda client: client.get("/openapi.json")).json()["paths"] == paths


def test_what_is_bentoml_s_goes_to_bentoml(run):
    async def ask(client):
        return [await client.get(path) for path in ("/healthz", "/docs.json", "/nowhere")]

    health, documents, nowhere = run(ask)
    assert health.status_code == documents.status_code == 418
    assert_refused(Case("", 404, "not-found"), nowhere)


def test_the_labels_of_the_metrics_do_not_grow_with_what_is_asked(run):
    async def ask(client):
        async def series() -> set[str]:
            text = (await client.get("/metrics")).text
            return {line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"}

        await client.get("/nowhere")
        await client.get("/models/none")
        before = await series()
        before = await series()  # the first asking added its own
        for k in range(500):
            path = f"/models/{k}" if k % 2 else f"/{k}/classify"
            assert (await client.get(path)).status_code == 404
        return before, await series()

    before, after = run(ask)
    assert before == after


def test_refusals_are_counted_by_reason(run):
    async def ask(client):
        await client.post("/classify", content=b"")
        await client.post("/classify", content=PNG)
        return (await client.get("/metrics")).text

    text = run(ask)
    assert 'cifar10_rejected_total{reason="malformed"} 1.0' in text
    assert 'cifar10_images_classified_total{model="tiny_a"} 1.0' in text
    assert f"cifar10_image_bytes_total {len(PNG):.1f}" in text
    assert 'cifar10_requests_total{code="400",route="/classify"} 1.0' in text
    assert 'provider="CPUExecutionProvider"' in text


def test_head_is_answered_like_get(run):
    assert run(lambda client: client.head("/livez")).status_code == 200


def test_form_order_of_part_headers_does_not_matter(run):
    part = (
        b"Content-Type: image/png\r\n"
        b"CONTENT-DISPOSITION: form-data; filename=x; name=image\r\n\r\n" + PNG
    )
    arguments = form(part)
    response = run(lambda client: client.post("/classify", **arguments))
    assert response.status_code == 200, response.text


def test_httpx_is_not_told_more_than_the_answer(run):
    response: httpx.Response = run(lambda client: client.post("/classify", content=PNG))
    assert response.headers["x-content-type-options"] == "nosniff"
