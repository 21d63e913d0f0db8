"""Tests of batches of fixed sizes, on the CPU. The code is the same as on CUDA."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

from cifar10.cuda_batches import BucketedRuns, runs_of
from cifar10.predictor import CPU_PROVIDER, Predictor, PredictorOptions
from tests.conftest import linear_onnx

IMAGES = np.random.default_rng(3).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("count", "runs"),
    [
        (1, [(1, 1)]),
        (2, [(2, 8)]),
        (8, [(8, 8)]),
        (9, [(9, 32)]),
        (32, [(32, 32)]),
        (33, [(32, 32), (1, 1)]),
        (70, [(32, 32), (32, 32), (6, 8)]),
    ],
)
def test_batches_are_padded_or_split(count, runs):
    assert runs_of(count, (1, 8, 32)) == runs


@pytest.fixture
def bucketed() -> BucketedRuns:
    def open_session() -> ort.InferenceSession:
        return ort.InferenceSession(linear_onnx(0), providers=[CPU_PROVIDER])

    return BucketedRuns(open_session, (1, 8, 32), "cpu")


def test_bucketed_answers_equal_those_of_a_plain_run(bucketed):
    plain = Predictor(linear_onnx(0), PredictorOptions("cpu"))
    for count in (70, 1, 2, 8, 31, 33):  # what is left in the memory of a larger run is nobody's
        found = bucketed.run(IMAGES[:count])
        assert (found.shape, found.dtype) == ((count, 10), np.float32)
        assert np.allclose(found, plain.predict(IMAGES[:count]), atol=1e-6)


def test_an_answer_is_a_copy(bucketed):
    first = bucketed.run(IMAGES[:1])
    kept = first.copy()
    bucketed.run(IMAGES[1:2])
    assert np.array_equal(first, kept)


def test_concurrent_threads_do_not_mix_images(bucketed):
    plain = Predictor(linear_onnx(0), PredictorOptions("cpu"))
    with ThreadPoolExecutor(4) as threads:
        found = list(
            threads.map(lambda number: bucketed.run(IMAGES[number : number + 1]), range(70))
        )
    assert np.allclose(np.concatenate(found), plain.predict(IMAGES), atol=1e-6)
