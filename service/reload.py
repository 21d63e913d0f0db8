"""Replace, load and unload models without a restart: ``POST /models/{name}/reload``, SIGHUP, or the
repository routes of the Open Inference Protocol.

The worker that receives the request loads the store's file alongside the model in service and
checks it. Only then does it replace that model, and signal every other worker to do the same. If a
file fails its checks, the old model keeps serving.

Each reload has a number and is recorded on the board with its model, so that every worker reloads
the same model. A fault in one model neither delays nor fails the reload of another.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any, Final

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
        settings: the settings; without an administrator's token nothing can be reloaded.
        models: the models to change.
        place: this worker's place on the board.
        metrics: metrics that record the change.
        before_swap: called in a thread with a new model, before it is put into service.
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
        # Workers that BentoML starts have separate boards and cannot reach each other.
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
            Problem: 401 or 403 if not allowed, 404 for an unknown model, 409 if the new file
                cannot be served, or not by every worker. The detail gives the reason and the
                file in service.
        """
        query_parameters(request.query)
        self.check_allowed(request.headers.items())
        return json_answer(await self.load(request.path.removesuffix(SUFFIX).rpartition("/")[2]))

    def check_allowed(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Check that the sender of ``headers`` may change models.

        Raises:
            Problem: 401 or 403 if not.
        """
        if self._cannot_reach_others:
            detail = "with several workers, reloading works on Linux only: restart the server"
            raise Problem(Kind.FORBIDDEN, detail)
        if self._token is None:
            detail = (
                "loading, reloading and unloading are off: start the server with "
                "CIFAR10_ADMIN_TOKEN to allow them"
            )
            raise Problem(Kind.FORBIDDEN, detail)
        check_token(headers, (self._token,))

    async def load(self, name: str) -> dict[str, Any]:
        """Load the store's file of a model in every worker, and return what is served now.

        Raises:
            Problem: 404 for an unknown model, 409 as for :meth:`answer`.
        """
        name = self._known(name)
        async with self._lock:
            before, now = await self._change(name)
            self._place.board.set_unloaded(model_key(name), False)
            number = self._place.board.next_reload(model_key(name))
            await self._catch_up()
        took, failed = await self._signal_others(number)
        if failed:
            detail = (
                f"{took} of {took + failed} workers serve {now.card.sha256}; the others could not "
                "load it, see their log. Reload again, or restart the server"
            )
            raise Problem(Kind.UNFIT_FILE, detail)
        return {
            "model": name,
            "digest": now.card.sha256,
            "previous": before and before.card.sha256,
            "workers": took,
        }

    async def unload(self, name: str) -> dict[str, Any]:
        """Take a model out of service in every worker until it is loaded again.

        Raises:
            Problem: 404 for an unknown model, 409 for one that answers requests that name none.
        """
        name = self._known(name)
        if name in self._models.default_names:
            what = "the default model" if name == self._models.default else "half of the default"
            detail = f"{name!r} is {what}, which answers requests that name none"
            raise Problem(Kind.UNFIT_FILE, detail)
        async with self._lock:
            try:
                self._place.board.set_unloaded(model_key(name), True)
            except RuntimeError as error:
                raise Problem(Kind.UNFIT_FILE, str(error)) from error
            number = self._place.board.next_reload(model_key(name))
            await self._catch_up()
        took, _ = await self._signal_others(number)
        return {"model": name, "workers": took}

    def _known(self, name: str) -> str:
        name = self._models.aliases.get(name, name)
        if name not in self._models.names:
            raise no_such_model(name, (*self._models.names, *self._models.aliases))
        return name

    def on_signal(self) -> None:
        """Carry out the reloads announced on the board."""
        task = asyncio.get_running_loop().create_task(self._answer_signal())
        self._by_signal.add(task)
        task.add_done_callback(self._by_signal.discard)

    async def _answer_signal(self) -> None:
        async with self._lock:
            await self._catch_up()

    async def _catch_up(self) -> None:
        """Carry out every announced reload that this worker has not handled. The caller holds the
        lock."""
        board = self._place.board
        done = board.get(self._place.row, Field.RELOADED)
        last = board.last_reload
        forgotten = last - done > RELOADS  # the board no longer lists every missed one
        for number in range(max(done, last - RELOADS) + 1, last + 1):
            key = EVERY_MODEL if forgotten else board.reload_key(number)
            names = [name for name in self._models.names if key in (EVERY_MODEL, model_key(name))]
            fit = [await self._has_taken_over(name) for name in names]
            self._place.report_reload(number, bool(fit) and all(fit))

    async def _has_taken_over(self, name: str) -> bool:
        """Load the store's file of one model if it has changed, or unload the model. Return whether
        that succeeded."""
        if self.is_unloaded(name):
            if self._first_load is not None:
                await asyncio.shield(self._first_load)
            self._forget(self._models.unload(name))
            return True
        try:
            if await asyncio.to_thread(self._models.has_changed, name):
                await self._change(name)
        except (Problem, Cifar10Error) as error:
            logger.error("model %s is not reloaded: %s", name, error)
            return False
        except Exception:  # a bug in this program; the other models must still be reloaded
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
        except Exception as error:  # the runtime raises any type for a file that it cannot load
            logger.exception("model %s cannot be reloaded", name)
            raise self._refusal(name, f"{type(error).__name__}; see the log") from error
        before = self._models.swap(model)
        self._forget(before)
        self._metrics.model_loaded(model)
        logger.info("model %s was reloaded: SHA-256 %s", name, model.card.sha256)
        return before, model

    def is_unloaded(self, name: str) -> bool:
        """Return whether a model is to be out of service in every worker."""
        return self._place.board.is_unloaded(model_key(name))

    def _forget(self, model: LoadedModel | None) -> None:
        if model is not None:
            self._metrics.model_loaded(model, is_loaded=False)

    def _refusal(self, name: str, reason: str) -> Problem:
        old = self._models.loaded.get(name)
        serving = f"SHA-256 {old.card.sha256} keeps serving" if old else "no model is in service"
        return Problem(Kind.UNFIT_FILE, f"{reason}. {serving}")

    async def _signal_others(self, number: int) -> tuple[int, int]:
        """Signal the other workers and wait for them. Return the number of workers that serve the
        new file, this one included, and the number that do not."""
        waited = []
        for row, process in self._place.others():
            try:
                os.kill(process, signal.SIGHUP)
            except OSError:
                continue  # it has ended; its replacement reads the store
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
