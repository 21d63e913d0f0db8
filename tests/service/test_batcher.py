"""Tests of the batcher: which requests share a run, are refused, or never run."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.batcher import Batcher, Run
from service.models import batch_sizes
from service.problems import Kind, Problem
from service.telemetry.metrics import Metrics

POISON = 255
SLOW = 1.0
FAST = 0.0


def images(*values: int) -> np.ndarray:
    return np.stack([np.full((32, 32, 3), value, np.uint8) for value in values])


class Model:
    """Model that answers each image with its first pixel and records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.gate.wait(30)
        values = batch[:, 0, 0, 0]
        self.batches.append(values.tolist())
        self.threads.add(threading.current_thread().name)
        if POISON in values:
            message = "a defect"
            raise RuntimeError(message)
        return np.repeat(values[:, np.newaxis].astype(np.float32), 10, axis=1)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def run(model, metrics):
    """Run a coroutine function with a batcher of ``model``."""

    def runner(behaviour, *, seconds_per_image=FAST, max_batch=4, bound=8):
        async def main():
            with ThreadPoolExecutor(1, thread_name_prefix="predict") as thread:
                batcher = Batcher(
                    model,
                    seconds_per_image=seconds_per_image,
                    thread=thread,
                    max_batch=max_batch,
                    bound=bound,
                    metrics=metrics.of_model("tiny"),
                )
                return await behaviour(batcher, asyncio.get_running_loop().time() + 30)

        return asyncio.run(main())

    return runner


def answers(results) -> list[list[float]]:
    return [result[:, 0].tolist() for result in results]


@pytest.mark.parametrize("seconds_per_image", [FAST, SLOW])
def test_each_request_of_a_shared_run_gets_its_own_answer(run, model, seconds_per_image):
    async def behaviour(batcher, deadline):
        asks = [batcher.predict(images(*values), deadline) for values in ((1,), (2, 3), (4,))]
        return await asyncio.gather(*asks)

    assert answers(run(behaviour, seconds_per_image=seconds_per_image)) == [[1], [2, 3], [4]]
    assert model.batches == [[1, 2, 3, 4]]


def test_a_fast_model_runs_on_the_loop_and_a_slow_one_does_not(run, model):
    async def behaviour(batcher, deadline):
        await batcher.predict(images(1), deadline)

    run(behaviour, seconds_per_image=FAST)
    assert model.threads == {"MainThread"}
    run(behaviour, seconds_per_image=SLOW)
    assert model.threads == {"MainThread", "predict_0"}


@pytest.mark.parametrize("seconds_per_image", [FAST, SLOW])
def test_a_request_can_get_the_timing_of_its_run(run, model, seconds_per_image):
    async def behaviour(batcher, deadline):
        told = Run()
        asks = [batcher.predict(images(1, 2), deadline), batcher.predict(images(3), deadline, told)]
        await asyncio.gather(*asks)
        return told

    told = run(behaviour, seconds_per_image=seconds_per_image)
    assert told.images == 3
    assert told.queue_seconds > 0
    assert told.inference_seconds > 0


def test_a_run_has_no_more_than_max_batch_images(run, model):
    async def behaviour(batcher, deadline):
        asks = [batcher.predict(images(*values), deadline) for values in ((1, 2), (3, 4, 5), (6,))]
        return await asyncio.gather(*asks)

    assert answers(run(behaviour)) == [[1, 2], [3, 4, 5], [6]]
    assert model.batches == [[1, 2], [3, 4, 5, 6]]


@pytest.mark.parametrize("seconds_per_image", [FAST, SLOW])
def test_a_large_request_is_split_and_others_run_in_between(run, model, seconds_per_image):
    async def behaviour(batcher, deadline):
        large = asyncio.create_task(batcher.predict(images(*range(1, 11)), deadline))
        await asyncio.sleep(0)
        small = asyncio.create_task(batcher.predict(images(99), deadline))
        return await asyncio.gather(large, small)

    large, small = run(behaviour, seconds_per_image=seconds_per_image, bound=11)
    assert answers([large, small]) == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [99]]
    assert max(map(len, model.batches)) == 4
    assert model.batches[-1] != [99]


@pytest.mark.parametrize("seconds_per_image", [FAST, SLOW])
def test_one_bad_request_does_not_fail_the_others_in_its_batch(run, seconds_per_image):
    async def behaviour(batcher, deadline):
        asks = [batcher.predict(images(value), deadline) for value in (1, POISON, 3)]
        return await asyncio.gather(*asks, return_exceptions=True)

    first, bad, third = run(behaviour, seconds_per_image=seconds_per_image)
    assert answers([first, third]) == [[1], [3]]
    assert isinstance(bad, RuntimeError)


def test_the_queue_is_bounded_in_images(run):
    async def behaviour(batcher, deadline):
        asks = [batcher.predict(images(*[1] * count), deadline) for count in (4, 4, 1)]
        refused = (await asyncio.gather(*asks, return_exceptions=True))[2]
        again = await batcher.predict(images(5), deadline)
        alone = await batcher.predict(images(*range(20)), deadline)  # it waits for nobody
        return refused, again, alone

    refused, again, alone = run(behaviour)
    assert isinstance(refused, Problem)
    assert refused.kind is Kind.QUEUE_FULL
    assert (b"retry-after", b"1") in refused.headers
    assert answers([again]) == [[5]]
    assert len(alone) == 20


@pytest.mark.parametrize("seconds_per_image", [FAST, SLOW])
def test_a_request_past_its_deadline_does_not_run(run, model, seconds_per_image):
    async def behaviour(batcher, deadline):
        late = batcher.predict(images(1), asyncio.get_running_loop().time() - 1)
        return await asyncio.gather(
            late, batcher.predict(images(2), deadline), return_exceptions=True
        )

    late, good = run(behaviour, seconds_per_image=seconds_per_image)
    assert isinstance(late, Problem)
    assert late.kind is Kind.DEADLINE
    assert answers([good]) == [[2]]
    assert model.batches == [[2]]


def test_a_request_behind_a_slow_run_leaves_the_queue_at_its_deadline(run, model, metrics):
    model.gate.clear()

    async def behaviour(batcher, deadline):
        first = asyncio.create_task(batcher.predict(images(1), deadline))
        while not batcher._busy or batcher._waiting:
            await asyncio.sleep(0.01)
        soon = asyncio.get_running_loop().time() + 0.05
        waiting = asyncio.create_task(batcher.predict(images(2), soon))
        await asyncio.sleep(0)
        assert b'cifar10_queue_images{model="tiny"} 1.0' in metrics.render()
        with pytest.raises(Problem) as late:
            await waiting
        assert b'cifar10_queue_images{model="tiny"} 0.0' in metrics.render()
        model.gate.set()
        await first
        return late.value.kind, await batcher.predict(images(3), deadline)

    kind, _ = run(behaviour, seconds_per_image=SLOW)
    assert kind is Kind.DEADLINE
    assert model.batches == [[1], [3]]


def test_an_abandoned_request_is_not_run_and_the_others_are(run, model):
    model.gate.clear()

    async def behaviour(batcher, deadline):
        first = asyncio.create_task(batcher.predict(images(1), deadline))
        while not batcher._busy or batcher._waiting:
            await asyncio.sleep(0.01)
        leaving, staying = (
            asyncio.create_task(batcher.predict(images(value), deadline)) for value in (2, 3)
        )
        await asyncio.sleep(0)
        leaving.cancel()
        model.gate.set()
        return await asyncio.gather(first, staying)

    assert answers(run(behaviour, seconds_per_image=SLOW)) == [[1], [3]]
    assert model.batches == [[1], [3]]


def test_batch_sizes_are_recorded_in_the_metrics(run, metrics):
    async def behaviour(batcher, deadline):
        await asyncio.gather(*[batcher.predict(images(value), deadline) for value in (1, 2, 3)])

    run(behaviour)
    metrics.tally.write()
    text = metrics.render().decode()
    assert 'cifar10_batch_images_sum{model="tiny"} 3.0' in text
    assert 'cifar10_batch_images_count{model="tiny"} 1.0' in text
    assert 'cifar10_queue_seconds_count{model="tiny"} 3.0' in text


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1]), (2, [1, 2]), (24, [1, 2, 4, 8, 16, 24]), (4, [1, 2, 4])]
)
def test_the_batch_sizes_for_warm_up(most, sizes):
    assert batch_sizes(most) == sizes
