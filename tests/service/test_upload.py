"""Tests that any bytes give an image or a refusal, never another error."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar10.image_layout import ImageLayout, Target
from service.inference import Inference
from service.problems import Problem
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.upload import extract_image, extract_images
from tests.service.cases import JPEG, PNG, WEBP, damaged

FORM = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + PNG + b"\r\n--b--\r\n"
FORM_TYPE = b"multipart/form-data; boundary=b"

DECODER = Inference(Settings(device="cpu"), Metrics())
MODEL = SimpleNamespace(takes_tiles=True, target=Target(32, 32), of_image=lambda *_: MODEL)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from([JPEG, PNG, WEBP]).flatmap(damaged) | st.binary(max_size=200),
    st.sampled_from([b"", b"image/png", b"application/json"]),
)
def test_damaged_images(body, content_type):
    with contextlib.suppress(Problem):
        tile, _ = DECODER._decode_short(body, content_type, MODEL)
        if isinstance(tile, ImageLayout):  # too large to be decoded at once
            assert tile.pixels > 32 * 32
        else:
            assert (tile.shape, tile.dtype) == ((1, 32, 32, 3), np.uint8)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(damaged(FORM), st.just(FORM_TYPE) | damaged(FORM_TYPE) | st.binary(max_size=80))
def test_damaged_forms(body, content_type):
    with contextlib.suppress(Problem):
        assert isinstance(extract_image(body, content_type), bytes)


NOTE = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\na cat\r\n'


@pytest.mark.parametrize(
    "form",
    [FORM, FORM.replace(b'"image"', b'"file"'), NOTE * 16 + FORM],
    ids=["image", "file", "text"],
)
def test_a_form_with_an_image(form):
    assert extract_image(form, FORM_TYPE) == PNG
    assert extract_images(form, FORM_TYPE, 1) == [PNG]


def test_several_images_for_the_route_of_one_are_referred_to_the_other():
    part = FORM.removesuffix(b"--b--\r\n")
    with pytest.raises(Problem, match="several such parts; POST /classify/batch takes many images"):
        extract_image(part + FORM, FORM_TYPE)
