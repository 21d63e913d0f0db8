"""Tests of the predictor on a GPU: its device, its batches, and the CPU's answers."""

import numpy as np
import onnx
import pytest

from cifar10.errors import ProviderUnavailableError
from cifar10.predictor import CPU_PROVIDER, CUDA_PROVIDER, Predictor, PredictorOptions
from cifar10.released import RELEASED
from cifar10.store import StoredModel
from export.float16 import convert_fp16
from tests.cuda.conftest import NAMES, STORE

BUCKETS = (1, 8, 32)


def opened(stored: StoredModel, device: str, **options) -> Predictor:
    """Return a predictor; skip an int8 graph without CUDA kernels, with ONNX Runtime's reason."""
    try:
        return Predictor(stored.onnx, PredictorOptions(device=device, **options))
    except ProviderUnavailableError as error:
        if stored.card.precision == "fp32":
            raise
        pytest.skip(f"{stored.card.name} is refused on {device}: {error}")


def test_the_default_on_a_gpu_is_released():
    assert RELEASED["cuda"][0] in NAMES


def test_the_device_asked_for_executes(stored, device):
    predictor = opened(stored, device)
    assert predictor.provider == {"cuda": CUDA_PROVIDER, "cpu": CPU_PROVIDER}[device]
    assert predictor.device == device


def test_golden_answers(stored, device):
    opened(stored, device).check_card(stored.card)


def test_answers_are_those_of_the_cpu(stored, device, images):
    here = opened(stored, device).predict(images)
    there = Predictor(stored.onnx, PredictorOptions(device="cpu")).predict(images)
    np.testing.assert_allclose(here.sum(axis=1), 1, atol=1e-4)
    same = here.argmax(1) == there.argmax(1)
    if stored.card.precision == "fp32":
        np.testing.assert_allclose(here, there, atol=2e-3)
        assert same.mean() >= 0.998
    else:  # rounding to 8 bits turns small differences into large ones
        assert same.mean() >= 0.98


@pytest.mark.parametrize("count", [1, 2, 8, 9, 31, 32, 33, 100])
def test_bucketed_batches_answer_as_whole_ones(device, images, count):
    stored = STORE.load(RELEASED["cuda"][0])
    whole = Predictor(stored.onnx, PredictorOptions(device=device)).predict(images[:count])
    bucketed = Predictor(stored.onnx, PredictorOptions(device=device, cuda_buckets=BUCKETS))
    bucketed.warm_up(BUCKETS)
    np.testing.assert_allclose(bucketed.predict(images[:count]), whole, atol=1e-4)


def test_buckets_run_through_bound_memory(device, images):
    """The code of :mod:`cifar10.cuda_batches` on the device itself, whatever ``device`` chose."""
    stored = STORE.load(RELEASED["cuda"][0])
    predictor = Predictor(stored.onnx, PredictorOptions(device=device, cuda_buckets=BUCKETS))
    runs = predictor._bucketed_runs(stored.onnx, predictor.device) if device == "cpu" else None
    found = (runs or predictor._bucketed).run(images[:40])
    whole = Predictor(stored.onnx, PredictorOptions(device=device)).predict(images[:40])
    np.testing.assert_allclose(found, whole, atol=1e-4)


def test_arena_bound_holds_for_the_served_batches(device, images):
    """The server's own bound, 2 GiB an arena, is enough for its largest request."""
    stored = STORE.load(RELEASED["cuda"][0])
    options = PredictorOptions(device=device, cuda_buckets=BUCKETS, cuda_memory_bytes=2 << 30)
    assert Predictor(stored.onnx, options).predict(images).shape == (512, 10)


def test_float16_names_the_same_classes(device, images):
    stored = STORE.load(RELEASED["cuda"][0])
    half = convert_fp16(onnx.load_from_string(stored.onnx)).SerializeToString()
    here = Predictor(half, PredictorOptions(device=device)).predict(images)
    there = Predictor(stored.onnx, PredictorOptions(device=device)).predict(images)
    assert (here.argmax(1) == there.argmax(1)).mean() >= 0.98
    assert np.abs(here - there).max() < 0.2
