"""Load the server's models and track whether each is ready to serve.

A model is ready when its file has the digest on its card, it runs on the requested device, it is
warmed up, and it gives the golden answer. A model that is not ready keeps the whole server unready;
``/readyz`` gives the reason.
"""

import gc
import logging
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cifar10.card import ModelCard
from cifar10.errors import Cifar10Error, ModelNotFoundError
from cifar10.predictor import Predictor, PredictorOptions, likely_device
from cifar10.released import RELEASED, default_model
from cifar10.store import ModelStore
from service.problems import Kind, Problem, no_such_model, try_later
from service.settings import Settings
from service.telemetry.logs import flush_log

logger = logging.getLogger(__name__)

_LOADING: Final = "being loaded"
_TIMINGS: Final = 3


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to serve. Compared by identity: two may have the same card."""

    card: ModelCard
    predictor: Predictor
    seconds_per_image: float
    """Time per image in the largest batch; decides which thread runs the model."""


@dataclass(frozen=True)
class Choice:
    """The models to load, and the default model for requests that name none."""

    names: tuple[str, ...]
    default: str
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias → model name."""


def choose(settings: Settings, store: ModelStore) -> Choice:
    """Return the models to load from ``store``.

    Raises:
        ModelNotFoundError: the store is empty or lacks a model that the settings name. The message
            lists the models in the store.
    """
    there = store.names()
    if not there:
        message = (
            f"no model in {store.root}. Make one: cifar10 train simple_cnn && "
            "cifar10 export simple_cnn; or point CIFAR10_MODELS to a folder of models"
        )
        raise ModelNotFoundError(message)
    names = settings.load or tuple(there)
    for name in names:
        if name not in there:
            message = f"CIFAR10_LOAD names {name!r}; {store.root} has: {', '.join(there)}"
            raise ModelNotFoundError(message)
    for alias, model in settings.aliases.items():
        if alias in there or model not in names:
            reason = "is a model's own name" if alias in there else f"stands for {model!r}"
            message = f"CIFAR10_ALIASES: {alias!r} {reason}; models to load: {', '.join(names)}"
            raise ModelNotFoundError(message)
    default = settings.default_model
    default = settings.aliases.get(default, default) if default is not None else None
    if default is None:
        device = likely_device(settings.device)
        current = [name for name in names if not _is_of_an_older_file(name, store)]
        default = default_model(current, device) or RELEASED[device][0]
    if default not in names:
        message = (
            f"the default model {default!r} is not among those to load ({', '.join(names)}); "
            "set CIFAR10_DEFAULT_MODEL to one of them"
        )
        raise ModelNotFoundError(message)
    return Choice(names, default, settings.aliases)


def _is_of_an_older_file(name: str, store: ModelStore) -> bool:
    """Whether the model is a variant of a source that has since been exported again; if so, log a
    warning."""
    try:
        variant = store.card(name).variant
        if variant is None or store.card(variant.source).sha256 == variant.source_sha256:
            return False
    except Cifar10Error:  # loading will report it, or the source is not in this store
        return False
    logger.warning(
        "%s was made from an older %s, so it is not the default; make it again: "
        "cifar10 export %s --%s",
        name, variant.source, variant.source, store.card(name).precision,
    )  # fmt: skip
    return True


def batch_sizes(max_batch: int) -> list[int]:
    """Return the batch sizes for warm-up: the powers of two up to ``max_batch``, and ``max_batch``.

    Not every size is needed: ONNX Runtime's CPU kernels are not compiled per shape. A first run is
    slow because it allocates memory, and the largest size allocates enough for all smaller ones. On
    CUDA these sizes cover every bucket (:func:`predictor_options`), and no other size is run."""
    sizes = [1 << power for power in range(max_batch.bit_length()) if 1 << power < max_batch]
    return [*sizes, max_batch]


CUDA_BUCKETS: Final = (1, 8)
"""Batch sizes below the largest on CUDA. Few, because each needs its own copy of the model
there."""


def predictor_options(settings: Settings) -> PredictorOptions:
    """Return the options with which every model of this server runs."""
    below = tuple(size for size in CUDA_BUCKETS if size < settings.max_batch)
    return PredictorOptions(
        settings.device,
        settings.threads,
        cuda_buckets=(*below, settings.max_batch),
        cuda_memory_bytes=settings.cuda_memory_bytes,
    )


def load_model(
    store: ModelStore, name: str, options: PredictorOptions, max_batch: int = 1
) -> LoadedModel:
    """Load one model, check that it works, and measure its speed.

    Raises:
        StoreError: the card is missing or invalid, or the file is not the one it describes.
        PredictorError: the model does not run on the device, or gives wrong answers.
    """
    stored = store.load(name)
    predictor = Predictor(stored.onnx, options)
    predictor.warm_up(batch_sizes(max_batch))
    predictor.check_card(stored.card)
    # The minimum of several: other load on the machine can only lengthen a run. Where this thread
    # does all the work, its own CPU time: a replacement worker starts under full load.
    alone = options.threads == 1 and predictor.device == "cpu"
    seconds = min(
        timeit.repeat(
            lambda: predictor.warm_up((max_batch,)),
            timer=time.thread_time if alone else time.perf_counter,
            number=1,
            repeat=_TIMINGS,
        )
    )
    return LoadedModel(stored.card, predictor, seconds / max_batch)


class ModelSet:
    """The models of one worker process.

    ``load_all`` runs in a thread while the event loop already answers ``/livez`` and ``/readyz``.

    Raises:
        ModelNotFoundError: see :func:`choose`.
    """

    def __init__(self, settings: Settings, store: ModelStore) -> None:
        choice = choose(settings, store)
        self.default = choice.default
        self.names = choice.names
        self.aliases = choice.aliases
        self.loaded: dict[str, LoadedModel] = {}
        self.unfit: dict[str, str] = dict.fromkeys(choice.names, _LOADING)
        """Model → why it is not ready. Empty when all models are ready."""
        self._store = store
        self._options = predictor_options(settings)
        self._max_batch = settings.max_batch

    def load_all(
        self,
        on_loaded: Callable[[LoadedModel], None] = lambda _: None,
        is_unloaded: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Load every model but those that are unloaded. Failures are logged and kept in ``unfit``,
        not raised, so that the process keeps running and can report them; raising would restart it
        in an endless loop."""
        for name in self.names:
            if is_unloaded(name):
                del self.unfit[name]
                continue
            try:
                model = load_model(self._store, name, self._options, self._max_batch)
                on_loaded(model)
            except Cifar10Error as error:
                self.unfit[name] = str(error)
                logger.error("model %s cannot be served: %s", name, error)
            except Exception as error:  # a bug in our code or in the runtime
                self.unfit[name] = f"{type(error).__name__} while loading; see the server's log"
                logger.exception("model %s cannot be served", name)
            else:
                self.loaded[name] = model
                logger.info(
                    "model %s is ready on %s (%s), %.2f ms an image",
                    name,
                    model.predictor.device,
                    model.predictor.provider,
                    model.seconds_per_image * 1e3,
                )
                flush_log()  # before the server can be ready: its start is the last thing logged
                del self.unfit[name]
        # Loaded models live as long as the process, so the garbage collector can skip them.
        gc.collect()
        gc.freeze()

    def has_changed(self, name: str) -> bool:
        """Return whether the store's card of ``name`` differs from the card of the model in
        service.

        Raises:
            StoreError: the store's card cannot be read.
        """
        model = self.loaded.get(name)
        return model is None or self._store.card(name) != model.card

    def load_again(self, name: str) -> LoadedModel:
        """Load and check the store's current version of model ``name``, without serving it yet.

        Raises:
            Cifar10Error: the new version cannot be served. The model in service is unchanged.
        """
        return load_model(self._store, name, self._options, self._max_batch)

    def swap(self, model: LoadedModel) -> LoadedModel | None:
        """Serve ``model`` from now on. Return the model it replaces, if any, which still answers
        the requests that have started."""
        name = model.card.name
        before = self.loaded.get(name)
        self.loaded[name] = model
        self.unfit.pop(name, None)
        return before

    def unload(self, name: str) -> LoadedModel | None:
        """Take a model out of service. Return it, if it was in service; it still answers the
        requests that have started."""
        self.unfit.pop(name, None)
        return self.loaded.pop(name, None)

    def why_unavailable(self, name: str) -> str | None:
        """Return why one of :attr:`names` is not in service; None if it is."""
        if name in self.loaded:
            return None
        return self.unfit.get(name, "unloaded")

    def get(self, name: str | None) -> LoadedModel:
        """Return the model ``name``, or the default.

        Raises:
            Problem: 404 for an unknown name or an unloaded model, 503 for a model that is not
                ready.
        """
        wanted = self.default if name is None else name
        model = self.loaded.get(wanted)
        if model is not None:
            return model
        wanted = self.aliases.get(wanted, wanted)
        model = self.loaded.get(wanted)
        if model is not None:
            return model
        if wanted not in self.names:
            raise no_such_model(wanted, (*self.names, *self.aliases))
        reason = self.unfit.get(wanted)
        if reason is None:
            detail = f"the model {wanted!r} is unloaded: POST /v2/repository/models/{wanted}/load"
            raise Problem(Kind.NO_SUCH_MODEL, detail)
        raise try_later(Kind.NOT_READY, f"the model {wanted!r} is not ready: {reason}")
