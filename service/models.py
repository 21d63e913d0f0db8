"""The models of this server, and whether each is fit to answer.

A model is fit when its file has the digest on its card, it runs on the device asked for, it is
warm, and it gives the golden answer. One that is not fit keeps the server unready; ``/readyz`` says
why.
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
from service.problems import Kind, no_such_model, try_later
from service.settings import Settings

logger = logging.getLogger(__name__)

_LOADING: Final = "being loaded"
_TIMINGS: Final = 3


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is fit to answer. Equal only to itself: another may have the same card."""

    card: ModelCard
    predictor: Predictor
    seconds_per_image: float
    """Time for one image in the largest batch; decides in which thread the model runs."""


@dataclass(frozen=True)
class Choice:
    """The models to load, and the default: the one for requests that name none."""

    names: tuple[str, ...]
    default: str
    aliases: dict[str, str] = field(default_factory=dict)
    """Models by alias."""


def choose(settings: Settings, store: ModelStore) -> Choice:
    """Return the models to load from ``store``.

    Raises:
        ModelNotFoundError: the store is empty, or lacks a model that the settings name; says what
            there is.
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
    """Whether the model is a variant of one that has been exported again since; logs a warning."""
    try:
        variant = store.card(name).variant
        if variant is None or store.card(variant.source).sha256 == variant.source_sha256:
            return False
    except Cifar10Error:  # its loading will say why; or its source is not here to be compared
        return False
    logger.warning(
        "%s was made of an older %s and is not the default; make it again: "
        "cifar10 export %s --%s",
        name, variant.source, variant.source, store.card(name).precision,
    )  # fmt: skip
    return True


def batch_sizes(max_batch: int) -> list[int]:
    """Return the batch sizes that are run before a model is ready: the powers of two up to
    ``max_batch``, and ``max_batch``.

    Not every size: ONNX Runtime's CPU kernels are not compiled for a shape. What a first run costs
    is memory for that much data, which the largest size has fetched for all below it. On CUDA these
    fill every bucket there is (:func:`predictor_options`), and no other size is ever run."""
    sizes = [1 << power for power in range(max_batch.bit_length()) if 1 << power < max_batch]
    return [*sizes, max_batch]


CUDA_BUCKETS: Final = (1, 8)
"""On CUDA, the batch sizes below the largest. Few, because each has a copy of the model there."""


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
    """Load one model, prove it fit, and measure it.

    Raises:
        StoreError: no card, a bad one, or a file that is not the one it describes.
        PredictorError: it does not run on the device, or answers something else than it should.
    """
    stored = store.load(name)
    predictor = Predictor(stored.onnx, options)
    predictor.warm_up(batch_sizes(max_batch))
    predictor.check_golden(stored.card.golden)
    # The least of several: what else the machine does can only make it longer. And where all the
    # work is this thread's, its own time: a worker that replaces another begins under full load.
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
    """Models of one worker process.

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
        """Model → why it cannot answer. Empty when the server is ready."""
        self._store = store
        self._options = predictor_options(settings)
        self._max_batch = settings.max_batch

    def load_all(self, on_loaded: Callable[[LoadedModel], None] = lambda _: None) -> None:
        """Load every model. Failures are logged and kept in ``unfit``, not raised: the process
        keeps running to say what is wrong, where raising would have it restarted for ever."""
        for name in self.names:
            try:
                model = load_model(self._store, name, self._options, self._max_batch)
                on_loaded(model)
            except Cifar10Error as error:
                self.unfit[name] = str(error)
                logger.error("model %s cannot be served: %s", name, error)
            except Exception as error:  # a defect of ours or of the runtime, no less unready
                self.unfit[name] = f"{type(error).__name__} while loading; see the server's log"
                logger.exception("model %s cannot be served", name)
            else:
                self.loaded[name] = model
                del self.unfit[name]
                logger.info(
                    "model %s is ready on %s (%s), %.2f ms an image",
                    name,
                    model.predictor.device,
                    model.predictor.provider,
                    model.seconds_per_image * 1e3,
                )
        # What is loaded stays for the life of the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    def has_changed(self, name: str) -> bool:
        """Whether the store's card of ``name`` is another than that of the model that answers.

        Raises:
            StoreError: the store's card cannot be read.
        """
        model = self.loaded.get(name)
        return model is None or self._store.card(name) != model.card

    def load_again(self, name: str) -> LoadedModel:
        """Load what the store has now under ``name`` and prove it fit; it does not answer yet.

        Raises:
            Cifar10Error: it is not fit. The model that answers is unchanged.
        """
        return load_model(self._store, name, self._options, self._max_batch)

    def swap(self, model: LoadedModel) -> LoadedModel | None:
        """Let ``model`` answer from now on; return the model that answered under its name before,
        which still answers the requests that have begun."""
        name = model.card.name
        before = self.loaded.get(name)
        self.loaded[name] = model
        self.unfit.pop(name, None)
        return before

    def get(self, name: str | None) -> LoadedModel:
        """Return the model ``name``, or the default.

        Raises:
            Problem: 404 for a name that this server does not have, 503 for one not fit to answer.
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
        detail = f"the model {wanted!r} cannot answer: {self.unfit.get(wanted, _LOADING)}"
        raise try_later(Kind.NOT_READY, detail)
