"""Micro-batcher: queues the requests of one model and runs whatever is waiting as one batch.

Requests that arrive in the same iteration of the event loop share one run of the model. A request
that arrives alone is run alone, at once: no request waits for a batch to fill. A fast model runs on
the event loop itself, because switching to a thread and back would cost as much as the model does.
A slow model runs in the worker's inference thread; requests that arrive meanwhile form its next
batch.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter, time
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.problems import Kind, Problem, try_later
from service.telemetry.metrics import ModelMetrics

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

INLINE_SECONDS: Final = 0.002
"""Longest time per image, in a full batch, of a model that runs on the event loop. So a full batch
blocks the loop for some 60 ms at most. On the loop, models of 0.9 and 1.4 ms served 1.4 and 1.5
times the requests/s that they served in a thread, with shorter tails (docs/experiments.md)."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """Timing of the run that served a request; recorded only on request."""

    queue_seconds: float = 0.0
    """Time from the request's submission to the start of the run."""
    inference_seconds: float = 0.0
    images: int = 0
    """Number of images in the run, including those of other requests."""


Outcome = Probabilities | Exception
"""Class probabilities of one request's images, float32 (N, classes), or why there are none."""


class _Callback:
    """Replaces a future: passes the outcome to a callback at once."""

    __slots__ = ("_deliver", "_is_done")

    def __init__(self, deliver: Callable[[Outcome], None]) -> None:
        self._deliver = deliver
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, outcome: Outcome) -> None:
        self._is_done = True
        try:
            self._deliver(outcome)
        except Exception:  # the other requests of the batch still wait for theirs
            logger.exception("an answer could not be delivered")

    set_exception = set_result


class _Ran(NamedTuple):
    """A run of the model, for the metrics."""

    requests: int
    images: int
    seconds: float
    request_seconds: float
    """Time from the submission of each of its requests to the end of the run, summed."""


@dataclass(eq=False, slots=True)
class _Item:
    """Images of one request that are run together."""

    images: Images
    deadline: float
    submitted: float
    answer: "asyncio.Future[Probabilities] | _Callback"
    timing: Run | None


class Batcher:
    """The queue of one model. Call its methods from the event loop's thread only.

    Args:
        run: the model: uint8 (N, height, width, 3) → float32 (N, classes).
        seconds_per_image: time per image in a full batch, measured during warm-up.
        thread: executor of a model that is too slow for the event loop.
        max_batch: largest number of images in one run.
        bound: largest number of images waiting or running.
        metrics: the model's metrics.
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
        self.is_inline = seconds_per_image <= INLINE_SECONDS
        """Whether the model runs on the event loop."""
        self._thread = thread
        self._max_batch = max_batch
        self._bound = bound
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Item] = deque()
        self._held = 0
        """Number of images of all unanswered requests."""
        self._shown_waiting = 0
        self._ran: list[_Ran] = []
        """Runs that are still to be counted, which only the event loop's thread may do."""
        self._busy = False
        """Whether a run is in progress or scheduled for the loop's next iteration."""

    async def predict(
        self, images: Images, deadline: float, timing: Run | None = None
    ) -> Probabilities:
        """Return the class probabilities of one request's images.

        Args:
            images: uint8 (N, height, width, 3), RGB. More than ``max_batch`` images are run as
                several batches, so that small requests can run in between.
            deadline: time on the event loop's clock.
            timing: filled with the timing of the (last) run.

        Returns:
            float32 (N, classes).

        Raises:
            Problem: 503 when too many images are waiting, 504 when the deadline has passed. Images
                whose run has not started by the deadline are never run.
        """
        count = len(images)
        self._hold(count)
        try:
            if count <= self._max_batch:
                return await self._answer(images, deadline, timing)
            parts = [
                await self._answer(images[start : start + self._max_batch], deadline, timing)
                for start in range(0, count, self._max_batch)
            ]
            return np.concatenate(parts)
        except Exception:
            self._metrics.failures.inc()
            raise
        finally:
            self._held -= count

    def takes_at_once(self, images: Images) -> bool:
        """Return whether :meth:`submit` takes ``images``: (N, height, width, 3)."""
        return self.is_inline and len(images) <= self._max_batch

    def submit(self, images: Images, deadline: float, deliver: Callable[[Outcome], None]) -> None:
        """Run the model on images like :meth:`predict`, but call ``deliver`` with the outcome as
        soon as there is one. Only for a model that runs on the event loop.

        Args:
            images: uint8 (N, height, width, 3), RGB, at most ``max_batch``.
            deadline: time on the event loop's clock.
            deliver: receives the class probabilities, float32 (N, classes), or the 504 problem or
                the model's failure.

        Raises:
            Problem: 503 when too many images are waiting.
        """
        count = len(images)
        self._hold(count)

        def release_and_deliver(outcome: Outcome) -> None:
            self._held -= count
            if isinstance(outcome, Exception):
                self._metrics.failures.inc()
            deliver(outcome)

        self._add(_Item(images, deadline, perf_counter(), _Callback(release_and_deliver), None))

    def _hold(self, count: int) -> None:
        if self._held and self._held + count > self._bound:
            self._metrics.failures.inc()
            detail = f"{self._held} images are waiting already; try again in a second"
            raise try_later(Kind.QUEUE_FULL, detail)
        self._held += count

    def _add(self, item: _Item) -> None:
        self._waiting.append(item)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._run_waiting)

    async def _answer(self, images: Images, deadline: float, timing: Run | None) -> Probabilities:
        answer: asyncio.Future[Probabilities] = self._loop.create_future()
        item = _Item(images, deadline, perf_counter(), answer, timing)
        self._add(item)
        if self.is_inline:  # it runs within a few iterations of the loop; a timer could not stop it
            return await answer
        self._show_queue()
        try:
            async with asyncio.timeout_at(deadline):
                return await answer
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
        elif self.is_inline:
            self._deliver(batch, self._outcomes(batch))
        else:
            self._thread.submit(self._outcomes, batch).add_done_callback(
                lambda done: self._deliver_soon(batch, done)
            )

    def _next_batch(self) -> list[_Item]:
        """Take the next batch from the queue, in order: at most ``max_batch`` images. Skip requests
        that are abandoned, and fail those past their deadline."""
        batch: list[_Item] = []
        count = 0
        now, clock = self._loop.time(), perf_counter()
        while self._waiting and count + len(self._waiting[0].images) <= self._max_batch:
            item = self._waiting.popleft()
            if item.answer.done():  # its client no longer waits
                continue
            self._metrics.tally.observe(self._metrics.queue_seconds, clock - item.submitted)
            if item.deadline <= now:
                item.answer.set_exception(past_deadline())
                continue
            batch.append(item)
            count += len(item.images)
        self._show_queue()
        return batch

    def _show_queue(self) -> None:
        waiting = sum([len(item.images) for item in self._waiting]) if self._waiting else 0
        if waiting != self._shown_waiting:
            self._shown_waiting = waiting
            self._metrics.queue_images.set(waiting)

    def _outcomes(self, batch: list[_Item]) -> list[Outcome]:
        """Run a batch. If that fails, run each of its requests alone, so that one request cannot
        fail the others. Never raises."""
        try:
            if len(batch) == 1:
                return [self._timed_run(batch, batch[0].images)]
            together = self._timed_run(batch, np.concatenate([item.images for item in batch]))
        except Exception as error:
            if len(batch) == 1:
                return [error]
            logger.exception("a batch failed; its %d requests are run one by one", len(batch))
            return [self._outcomes([item])[0] for item in batch]
        outcomes: list[Outcome] = []
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
        now = started + seconds
        waited = sum([now - item.submitted for item in batch])
        self._ran.append(_Ran(len(batch), len(images), seconds, waited))
        for item in batch:
            if item.timing is not None:
                item.timing.queue_seconds = started - item.submitted
                item.timing.inference_seconds = seconds
                item.timing.images = len(images)
        return probabilities

    def _deliver_soon(self, batch: list[_Item], done: "Future[list[Outcome]]") -> None:
        with suppress(RuntimeError):  # the loop has ended; nothing waits for the result
            self._loop.call_soon_threadsafe(self._deliver, batch, done.result())

    def _deliver(self, batch: list[_Item], outcomes: list[Outcome]) -> None:
        for item, outcome in zip(batch, outcomes, strict=True):
            if item.answer.done():
                continue
            if isinstance(outcome, Exception):
                item.answer.set_exception(outcome)
            else:
                item.answer.set_result(outcome)
        self._count_runs()
        if self._waiting:
            self._loop.call_soon(self._run_waiting)
        else:
            self._busy = False

    def _count_runs(self) -> None:
        metrics, runs, self._ran = self._metrics, self._ran, []
        tally = metrics.tally
        for run in runs:
            tally.observe(metrics.inference_seconds, run.seconds)
            tally.observe(metrics.batch_images, run.images)
            tally.add(metrics.classified, run.images)
            tally.add(metrics.requests, run.requests)
            tally.add(metrics.request_seconds, run.request_seconds)
            tally.set(metrics.last_run, time())
        tally.write_soon()


def past_deadline() -> Problem:
    """Return the 504 problem of a request whose deadline has passed."""
    return Problem(Kind.DEADLINE, "there was no answer before the request's deadline")
