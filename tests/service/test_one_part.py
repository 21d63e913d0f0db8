"""Tests that the short way of reading a form with one image agrees with the maintained parser."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import upload
from service.one_part import only_image
from service.problems import Problem
from service.upload import extract_image
from tests.service.cases import JPEG, damaged

BOUNDARY = b"----WebKitFormBoundary7MA4YWxk"
FORM_TYPE = b"multipart/form-data; boundary=" + BOUNDARY
NAMED = b'Content-Disposition: form-data; name="image"; filename="a cat.jpg"\r\n'
TYPED = b"Content-Type: image/jpeg\r\n"


def form(content: bytes, head: bytes = NAMED + TYPED, end: bytes = b"--\r\n") -> bytes:
    delimiter = b"--" + BOUNDARY
    return delimiter + b"\r\n" + head + b"\r\n" + content + b"\r\n" + delimiter + end


def parsed(body: bytes, content_type: bytes) -> bytes | None:
    """Return what the maintained parser finds; None if the form is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "only_image", lambda *_: None)
        try:
            return extract_image(body, content_type)
        except Problem:
            return None


@pytest.mark.parametrize(
    "head", [NAMED + TYPED, NAMED, b'content-disposition: form-data; name="file"\r\n']
)
@pytest.mark.parametrize("end", [b"--\r\n", b"--"])
def test_the_forms_of_usual_clients_need_no_parser(head, end):
    body = form(JPEG, head, end)
    assert only_image(body, FORM_TYPE) == parsed(body, FORM_TYPE) == JPEG


def test_the_name_of_a_part_is_taken_as_it_is_written():
    body = form(JPEG, NAMED.replace(b"image", b"IMAGE"))
    assert only_image(body, FORM_TYPE) is None
    assert parsed(body, FORM_TYPE) is None


FRAGMENTS = st.sampled_from(
    [
        b"\r", b"\n", b"\r\n", b"-", b"--", b"\r\n--", b"--" + BOUNDARY, b"\r\n--" + BOUNDARY,
        b"\r\n--" + BOUNDARY + b"\r\n", b"\r\n--" + BOUNDARY + b"--", BOUNDARY[:9], NAMED, TYPED,
        b'"', b"\\", b";", b"name=", b'name="image"', b"filename*=", b"\0", b":", b"image", b"x",
    ]
)  # fmt: skip
HOSTILE = st.lists(FRAGMENTS | st.binary(max_size=4), max_size=8).map(b"".join)


@st.composite
def recased(draw: st.DrawFn, head: bytes) -> bytes:
    """Draw ``head`` with some of its letters in the other case."""
    flips = draw(st.lists(st.booleans(), min_size=len(head), max_size=len(head)))
    text = zip(head.decode(), flips, strict=True)
    return "".join(letter.swapcase() if flip else letter for letter, flip in text).encode()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.text("0aZ'()+_.-", min_size=1, max_size=4).map(str.encode),
    st.integers(1, 250),
    st.sampled_from([NAMED, TYPED, NAMED + TYPED, TYPED + NAMED]).flatmap(recased),
    HOSTILE,
)
def test_both_ways_agree_on_boundaries_and_letter_case(boundary, times, head, content):
    boundary *= times
    body = form(JPEG + content, head).replace(BOUNDARY, boundary)
    content_type = FORM_TYPE.replace(BOUNDARY, boundary)
    short = only_image(body, content_type)
    if short is not None:
        assert short == parsed(body, content_type)


@settings(max_examples=1_000, deadline=None, derandomize=True)
@given(
    st.builds(form, HOSTILE, st.just(NAMED + TYPED) | HOSTILE, st.just(b"--\r\n") | HOSTILE)
    | st.builds(lambda name: form(JPEG, NAMED.replace(b"a cat.jpg", name) + TYPED), HOSTILE)
    | damaged(form(JPEG))
    | HOSTILE,
    st.just(FORM_TYPE) | damaged(FORM_TYPE) | HOSTILE.map(lambda more: FORM_TYPE + more),
)
def test_both_ways_agree_on_hostile_forms(body, content_type):
    short = only_image(body, content_type)
    if short is not None:
        assert short == parsed(body, content_type)
