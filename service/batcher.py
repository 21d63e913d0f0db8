"""The micro-batcher: one model's queue, run in batches of whatever is waiting.

Requests that arrive in the same turn of the event loop are answered by one run of the model, and a
request that comes alone is run alone, at once: nothing ever waits for company. A model that is fast
runs on the loop itself, where a hop to a thread and back would cost as much as the model does; a
slow one runs in the worker's inference thread, and what arrives meanwhile is its next batch.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.problems import Kind, Problem, try_later
from service.telemetry.metrics import ModelMetrics

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

INLINE_SECONDS: Final = 0.002
"""A model that takes longer than this for each image of a full batch leaves the event loop. So a
full batch holds the loop for some 60 ms at most. On the loop, models of 0.9 and 1.4 ms gave 1.4 and
1.5 times the requests/s that they gave in a thread, with shorter tails (docs/experiments.md)."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """What is told of the run in which one request was answered, where it asks for that."""

    queue_seconds: float = 0.0
    """From its submission to the start of the run."""
    inference_seconds: float = 0.0
    images: int = 0
    """In the run, its own and those of other requests."""


@dataclass(eq=False, slots=True)
class _Item:
    """Images of one request that are run together."""

    images: Images
    deadline: float
    submitted: float
    answer: "asyncio.Future[Probabilities]"
    told: Run | None


class Batcher:
    """The queue of one model. All methods are for the event loop's thread.

    Args:
        run: the model: uint8 (N, 32, 32, 3) → float32 (N, 10).
        seconds_per_image: what a full batch takes of it, measured when it was warmed.
        thread: where it runs when that is too long for the event loop.
        max_batch: the most images in one run.
        bound: the most images waiting or running.
        metrics: of this model.
    """

    def __init__(
        self,
        run: Callable[[Images], Probabilities],
        *,
        seconds_per_image: float,
        thread: ThreadPoolExecutor,
        max_batch: int,
        bound: int,
        metrics: ModelMetrics,
    ) -> None:
        self._run = run
        self._inline = seconds_per_image <= INLINE_SECONDS
        self._thread = thread
        self._max_batch = max_batch
        self._bound = bound
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Item] = deque()
        self._held = 0
        """Images of all the requests that are here."""
        self._shown_waiting = 0
        self._busy = False
        """Whether a run is going on or will begin in the loop's next turn."""

    async def predict(
        self, images: Images, deadline: float, told: Run | None = None
    ) -> Probabilities:
        """Class probabilities of one request's images.

        Args:
            images: uint8 (N, 32, 32, 3), RGB. More than ``max_batch`` are run one batch after the
                other, so that small requests get their turn in between.
            deadline: on the event loop's clock.
            told: filled with what is told of the (last) run.

        Returns:
            float32 (N, 10).

        Raises:
            Problem: 503, too many images are waiting; 504, the deadline has passed. What has not
                begun by then never does.
        """
        count = len(images)
        if self._held and self._held + count > self._bound:
            detail = f"{self._held} images are waiting already; try again in a second"
            raise try_later(Kind.QUEUE_FULL, detail)
        self._held += count
        try:
            if count <= self._max_batch:
                return await self._answer(images, deadline, told)
            parts = [
                await self._answer(images[start : start + self._max_batch], deadline, told)
                for start in range(0, count, self._max_batch)
            ]
            return np.concatenate(parts)
        finally:
            self._held -= count

    async def _answer(self, images: Images, deadline: float, told: Run | None) -> Probabilities:
        item = _Item(images, deadline, perf_counter(), self._loop.create_future(), told)
        self._waiting.append(item)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._run_waiting)
        if self._inline:  # it runs within a few turns of the loop, which no timer could cut short
            return await item.answer
        self._show_queue()
        try:
            async with asyncio.timeout_at(deadline):
                return await item.answer
        except TimeoutError:
            raise past_deadline() from None
        finally:
            with suppress(ValueError):
                self._waiting.remove(item)
                self._show_queue()

    def _run_waiting(self) -> None:
        batch = self._next_batch()
        if not batch:
            self._busy = False
        elif self._inline:
            self._deliver(batch, self._outcomes(batch))
        else:
            self._thread.submit(self._outcomes, batch).add_done_callback(
                lambda done: self._deliver_soon(batch, done)
            )

    def _next_batch(self) -> list[_Item]:
        """What is run next: in order, no more than ``max_batch`` images, nothing too late."""
        batch: list[_Item] = []
        count = 0
        now, clock = self._loop.time(), perf_counter()
        while self._waiting and count + len(self._waiting[0].images) <= self._max_batch:
            item = self._waiting.popleft()
            if item.answer.done():  # nobody waits for it any more
                continue
            self._metrics.queue_seconds.observe(clock - item.submitted)
            if item.deadline <= now:
                item.answer.set_exception(past_deadline())
                continue
            batch.append(item)
            count += len(item.images)
        self._show_queue()
        return batch

    def _show_queue(self) -> None:
        waiting = sum(len(item.images) for item in self._waiting)
        if waiting != self._shown_waiting:
            self._shown_waiting = waiting
            self._metrics.queue_images.set(waiting)

    def _outcomes(self, batch: list[_Item]) -> list[Probabilities | Exception]:
        """Run a batch, and where that fails each request of it alone, so that none of them fails
        for its neighbour. Raises nothing."""
        try:
            if len(batch) == 1:
                return [self._timed_run(batch, batch[0].images)]
            together = self._timed_run(batch, np.concatenate([item.images for item in batch]))
        except Exception as error:
            if len(batch) == 1:
                return [error]
            logger.exception("a batch failed; its %d requests are run one by one", len(batch))
            return [self._outcomes([item])[0] for item in batch]
        outcomes: list[Probabilities | Exception] = []
        start = 0
        for item in batch:
            end = start + len(item.images)
            outcomes.append(together[start:end])
            start = end
        return outcomes

    def _timed_run(self, batch: list[_Item], images: Images) -> Probabilities:
        started = perf_counter()
        probabilities = self._run(images)
        seconds = perf_counter() - started
        self._metrics.inference_seconds.observe(seconds)
        self._metrics.batch_images.observe(len(images))
        self._metrics.classified.inc(len(images))
        for item in batch:
            if item.told is not None:
                item.told.queue_seconds = started - item.submitted
                item.told.inference_seconds = seconds
                item.told.images = len(images)
        return probabilities

    def _deliver_soon(
        self, batch: list[_Item], done: "Future[list[Probabilities | Exception]]"
    ) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it those who waited
            self._loop.call_soon_threadsafe(self._deliver, batch, done.result())

    def _deliver(self, batch: list[_Item], outcomes: list[Probabilities | Exception]) -> None:
        for item, outcome in zip(batch, outcomes, strict=True):
            if item.answer.done():
                continue
            if isinstance(outcome, Exception):
                item.answer.set_exception(outcome)
            else:
                item.answer.set_result(outcome)
        if self._waiting:
            self._loop.call_soon(self._run_waiting)
        else:
            self._busy = False


def past_deadline() -> Problem:
    """504."""
    return Problem(Kind.DEADLINE, "there was no answer before the request's deadline")
