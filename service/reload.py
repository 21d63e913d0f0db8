"""Replace a model's file without a restart: ``POST /models/{name}/reload``, or SIGHUP.

The worker that is asked loads the store's file beside the model that answers and proves it fit.
Only then does it replace that model, there and in every other worker, which each prove it too. A
file that is not fit leaves the old model answering.

A reload has a number and says on the board for which model it is, so that each worker does the
same: what is wrong with one model neither delays nor fails the reload of another.
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
from service.workers.board import EVERY_MODEL, RELOADS, Field, Place, model_key

logger = logging.getLogger(__name__)

SUFFIX: Final = "/reload"

_OTHERS_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.02


class Reloader:
    """Replaces models of one worker, one at a time.

    Args:
        settings: has the administrator's token; without one nothing can be reloaded.
        models: the models to change.
        place: this worker's place on the board.
        metrics: records the change.
        before_swap: called with a new model before it answers, in a thread.
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
        # Workers that BentoML starts have a board each and cannot reach each other.
        self._cannot_reach_others = settings.workers > place.board.wanted
        self._models = models
        self._place = place
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._first_load: asyncio.Future[None] | None = None
        self._by_signal: set[asyncio.Task[None]] = set()

    @property
    def is_on(self) -> bool:
        """Whether reloading is allowed at all."""
        return self._token is not None

    def begin_after(self, first_load: "asyncio.Future[None]") -> None:
        """Delay any change until the worker has loaded the models it started with."""
        self._first_load = first_load

    async def answer(self, request: Request) -> Answer:
        """Answer ``POST /models/{name}/reload``.

        Raises:
            Problem: 401 and 403 not allowed, 404 no such model, 409 the new file is not fit, or
                not in every worker; the detail says why, and which file answers.
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
            number = self._place.board.next_reload(model_key(name))
            await self._catch_up()
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
        """Carry out the reloads that have been announced on the board."""
        task = asyncio.get_running_loop().create_task(self._answer_signal())
        self._by_signal.add(task)
        task.add_done_callback(self._by_signal.discard)

    async def _answer_signal(self) -> None:
        async with self._lock:
            await self._catch_up()

    async def _catch_up(self) -> None:
        """Carry out every announced reload that this worker has not dealt with; under the lock."""
        board = self._place.board
        done = board.get(self._place.row, Field.RELOADED)
        last = board.last_reload
        forgotten = last - done > RELOADS  # the board does not remember each of them
        for number in range(max(done, last - RELOADS) + 1, last + 1):
            key = EVERY_MODEL if forgotten else board.reload_key(number)
            names = [name for name in self._models.names if key in (EVERY_MODEL, model_key(name))]
            fit = [await self._has_taken_over(name) for name in names]
            self._place.report_reload(number, bool(fit) and all(fit))

    async def _has_taken_over(self, name: str) -> bool:
        """Whether the store's file of one model answers, after loading it if it has changed."""
        try:
            if await asyncio.to_thread(self._models.has_changed, name):
                await self._change(name)
        except (Problem, Cifar10Error) as error:
            logger.error("model %s is not reloaded: %s", name, error)
            return False
        except Exception:  # a defect of this program: the other models are reloaded all the same
            logger.exception("model %s is not reloaded", name)
            return False
        return True

    async def _change(self, name: str) -> tuple[LoadedModel | None, LoadedModel]:
        if self._first_load is not None:
            await asyncio.shield(self._first_load)
        try:
            model = await asyncio.to_thread(self._models.load_again, name)
            await asyncio.to_thread(self._before_swap, model)
        except Cifar10Error as error:
            raise self._refusal(name, str(error)) from error
        except Exception as error:  # the runtime raises any, for a file that it cannot load
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
        """Signal the other workers and return how many workers serve the new file, this one among
        them, and how many do not."""
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
                done = board.reload_outcome(row, number)
                if done is None and asyncio.get_running_loop().time() > until:
                    done = False
                if done is not None:
                    took, failed = took + done, failed + (not done)
                    break
                await asyncio.sleep(_LOOK_SECONDS)
        return took, failed
