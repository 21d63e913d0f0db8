"""A new file for a model, without a restart: ``POST /models/{name}/reload``, or SIGHUP.

The worker that is asked loads the store's file beside the one that answers and proves it fit. Only
then do they change places, there and, by a signal, in every other worker: each proves it itself.
A file that is not fit leaves the old one answering.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Final

from cifar10.errors import Cifar10Error
from service.access import check_token
from service.exchange import Answer, Request, json_answer, query_parameters
from service.models import LoadedModel, ModelSet
from service.problems import Kind, Problem, no_such_model
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.workers.board import Field, Place

logger = logging.getLogger(__name__)

SUFFIX: Final = "/reload"

_OTHERS_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.02


class Reloader:
    """Changes the models of one worker, one change at a time.

    Args:
        settings: has the administrator's token; without it nothing can be reloaded.
        models: what is changed.
        place: this worker's among the others.
        metrics: told of the change.
        before_swap: what is done with a new model before it answers, in a thread.
    """

    def __init__(
        self,
        settings: Settings,
        models: ModelSet,
        place: Place,
        metrics: Metrics,
        before_swap: Callable[[LoadedModel], None],
    ) -> None:
        self._before_swap = before_swap
        self._token = settings.admin_token
        # Workers that BentoML starts by itself do not know of each other.
        self._cannot_reach_others = settings.workers > place.board.wanted
        self._models = models
        self._place = place
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._first_load: asyncio.Future[None] | None = None
        self._by_signal: set[asyncio.Task[None]] = set()

    @property
    def is_on(self) -> bool:
        """Whether anybody may reload."""
        return self._token is not None

    def begin_after(self, first_load: "asyncio.Future[None]") -> None:
        """Wait with any change until the worker has loaded what it started with."""
        self._first_load = first_load

    async def answer(self, request: Request) -> Answer:
        """``POST /models/{name}/reload``.

        Raises:
            Problem: 401 and 403 who may not, 404 no such model, 409 the new file is not fit, or
                not in every worker: the detail says why, and which file answers.
        """
        query_parameters(request.query)
        if self._cannot_reach_others:
            detail = "with several workers, reloading works on Linux only: restart the server"
            raise Problem(Kind.FORBIDDEN, detail)
        if self._token is None:
            detail = "reloading is off: start the server with CIFAR10_ADMIN_TOKEN to allow it"
            raise Problem(Kind.FORBIDDEN, detail)
        check_token(request.headers.items(), (self._token,))
        name = request.path.removesuffix(SUFFIX).rpartition("/")[2]
        name = self._models.aliases.get(name, name)
        if name not in self._models.names:
            raise no_such_model(name, (*self._models.names, *self._models.aliases))
        async with self._lock:
            before, now = await self._change(name)
            number = self._place.board.next_reload()
            self._place.put(Field.RELOADED, number)
        took, failed = await self._tell_others(number)
        if failed:
            detail = (
                f"{took} of {took + failed} workers serve {now.card.sha256}, the others could not "
                "load it; their log says why. Reload again, or restart the server"
            )
            raise Problem(Kind.UNFIT_FILE, detail)
        return json_answer(
            {
                "model": name,
                "digest": now.card.sha256,
                "previous": before and before.card.sha256,
                "workers": took,
            }
        )

    def on_signal(self) -> None:
        """Reload what has changed in the store."""
        task = asyncio.get_running_loop().create_task(self._reload_changed())
        self._by_signal.add(task)
        task.add_done_callback(self._by_signal.discard)

    async def _reload_changed(self) -> None:
        async with self._lock:
            number = self._place.board.last_reload
            outcome = Field.RELOADED
            for name in self._models.names:
                try:
                    if await asyncio.to_thread(self._models.has_changed, name):
                        await self._change(name)
                except (Problem, Cifar10Error) as error:
                    logger.error("model %s is not reloaded: %s", name, error)
                    outcome = Field.RELOAD_FAILED
            self._place.put(outcome, number)

    async def _change(self, name: str) -> tuple[LoadedModel | None, LoadedModel]:
        if self._first_load is not None:
            await asyncio.shield(self._first_load)
        try:
            model = await asyncio.to_thread(self._models.load_again, name)
            await asyncio.to_thread(self._before_swap, model)
        except Cifar10Error as error:
            raise self._refusal(name, str(error)) from error
        except Exception as error:  # of the runtime, from a file that is none of ours
            logger.exception("model %s cannot be loaded anew", name)
            raise self._refusal(name, f"{type(error).__name__}; see the log") from error
        before = self._models.swap(model)
        if before is not None:
            self._metrics.model_loaded(before, is_there=False)
        self._metrics.model_loaded(model)
        logger.info("model %s is reloaded: SHA-256 %s", name, model.card.sha256)
        return before, model

    def _refusal(self, name: str, reason: str) -> Problem:
        old = self._models.loaded.get(name)
        answers = f"SHA-256 {old.card.sha256} answers on" if old else "nothing answers"
        return Problem(Kind.UNFIT_FILE, f"{reason}. {answers}")

    async def _tell_others(self, number: int) -> tuple[int, int]:
        """(workers that serve the new file, this one among them; workers that do not)."""
        waited = []
        for row, process in self._place.others():
            try:
                os.kill(process, signal.SIGHUP)
            except OSError:
                continue  # it has ended; the next one reads the store
            waited.append((row, process))
        board = self._place.board
        until = asyncio.get_running_loop().time() + _OTHERS_SECONDS
        took, failed = 1, 0
        for row, process in waited:
            while board.get(row, Field.PROCESS) == process:
                if board.get(row, Field.RELOADED) >= number:
                    took += 1
                    break
                late = asyncio.get_running_loop().time() > until
                if late or board.get(row, Field.RELOAD_FAILED) >= number:
                    failed += 1
                    break
                await asyncio.sleep(_LOOK_SECONDS)
        return took, failed
