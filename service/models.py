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
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cifar10.card import ModelCard
from cifar10.environment import Engine
from cifar10.errors import Cifar10Error
from cifar10.image_layout import TILE, Target
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.released import AUTO, AutoRule
from cifar10.store import ModelStore
from service.choice import choose
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
    max_batch: int = 1
    """Largest number of images in one run."""

    @cached_property
    def target(self) -> Target:
        """The picture that images are decoded to."""
        return self.card.target

    @cached_property
    def takes_tiles(self) -> bool:
        """Whether images are decoded to tiles of 32 × 32."""
        return self.target.size == TILE.size

    @property
    def engine(self) -> Engine:
        """Engine that runs the model."""
        return self.predictor.options.engine

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return len(self.card.labels)

    def of_image(self, width: int, height: int) -> "LoadedModel":
        """Return the model that answers an image of this size: this one."""
        return self

    @property
    def members(self) -> "tuple[LoadedModel, ...]":
        """The models that may answer: this one."""
        return (self,)


class AutoModel:
    """The virtual model ``auto``: the size of each image decides which model answers it.

    Args:
        rule: which model answers which image.
        get: returns a loaded model; raises a problem if it is not ready.
    """

    def __init__(self, rule: AutoRule, get: Callable[[str], LoadedModel]) -> None:
        self.rule = rule
        self._get = get

    @property
    def target(self) -> Target:
        """The picture that large images are decoded to."""
        return self._get(self.rule.large).target

    @property
    def class_count(self) -> int:
        """Largest number of classes."""
        return max(model.class_count for model in self.members)

    def of_image(self, width: int, height: int) -> LoadedModel:
        """Return the model that answers an image of this size."""
        return self._get(self.rule.choose(width, height))

    @property
    def members(self) -> tuple[LoadedModel, ...]:
        """The models that may answer."""
        return tuple(map(self._get, self.rule.names))


AskedModel = LoadedModel | AutoModel
"""Model that a request may name."""


FULL_BATCH_PIXELS: Final = 112 * 112
"""Most pixels of an image of which a run takes ``max_batch``. A run on the CPU takes fewer larger
images, in proportion: its memory and its time grow with their pixels, but not its throughput."""


def largest_batch(max_batch: int, predictor: Predictor) -> int:
    """Return the largest number of images in one run of a model."""
    height, width, _ = predictor.image_shape
    if predictor.device == "cuda" or height * width <= FULL_BATCH_PIXELS:
        return max_batch
    return max(1, max_batch * FULL_BATCH_PIXELS // (height * width))


MOST_COMPILED: Final = 32
"""Largest batch size for which all sizes are compiled before a model is ready. Compiling takes
tens of milliseconds, little beside the run of a larger batch."""


def batch_sizes(max_batch: int, *, compiled: bool = False) -> list[int]:
    """Return the batch sizes for warm-up: the powers of two up to ``max_batch``, and ``max_batch``.

    Not every size is needed: ONNX Runtime's CPU kernels are not compiled per shape. A first run is
    slow because it allocates memory, and the largest size allocates enough for all smaller ones. On
    CUDA these sizes cover every bucket (:func:`predictor_options`), and no other size is run.

    Args:
        max_batch: the largest size.
        compiled: whether kernels are compiled for each size; then every size up to
            :data:`MOST_COMPILED` is returned too.
    """
    sizes = {1 << power for power in range(max_batch.bit_length())} | {max_batch}
    if compiled:
        sizes.update(range(1, min(MOST_COMPILED, max_batch) + 1))
    return sorted(sizes)


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
        engine=settings.engine,
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
    max_batch = largest_batch(max_batch, predictor)
    predictor.warm_up(batch_sizes(max_batch, compiled=predictor.compiles_each_size))
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
    return LoadedModel(stored.card, predictor, seconds / max_batch, max_batch)


class ModelSet:
    """The models of one worker process.

    ``load_all`` runs in a thread while the event loop already answers ``/livez`` and ``/readyz``.

    Raises:
        ModelNotFoundError: see :func:`service.choice.choose`.
    """

    def __init__(self, settings: Settings, store: ModelStore) -> None:
        choice = choose(settings, store)
        self.default = choice.default
        self.default_names = choice.default_names
        self.names = choice.names
        self.aliases = choice.aliases
        self.auto = None if choice.auto is None else AutoModel(choice.auto, self.get)
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

    @property
    def selectable(self) -> tuple[str, ...]:
        """All names that a request may give."""
        return (*self.names, *self.aliases, *(() if self.auto is None else (AUTO,)))

    def asked(self, name: str | None) -> AskedModel:
        """Return the model ``name``, or the default; it may be the virtual one.

        Raises:
            Problem: 404 for an unknown name or an unloaded model, 503 for a model that is not
                ready.
        """
        wanted = self.default if name is None else name
        model = self.loaded.get(wanted)
        if model is not None:
            return model
        if self.auto is not None and self.aliases.get(wanted, wanted) == AUTO:
            return self.auto
        return self.get(wanted)

    def get(self, name: str) -> LoadedModel:
        """Return the loaded model ``name``.

        Raises:
            Problem: 404 for an unknown name, 503 for a model that is not ready.
        """
        model = self.loaded.get(name)
        if model is not None:
            return model
        wanted = self.aliases.get(name, name)
        model = self.loaded.get(wanted)
        if model is not None:
            return model
        if self.auto is not None and wanted == AUTO:
            members = " or ".join(self.auto.rule.names)
            detail = f"{AUTO!r} is two models with different inputs; name one here: {members}"
            raise Problem(Kind.NO_SUCH_MODEL, detail)
        if wanted not in self.names:
            raise no_such_model(wanted, self.selectable)
        reason = self.unfit.get(wanted)
        if reason is None:
            detail = f"the model {wanted!r} is unloaded: POST /v2/repository/models/{wanted}/load"
            raise Problem(Kind.NO_SUCH_MODEL, detail)
        raise try_later(Kind.NOT_READY, f"the model {wanted!r} is not ready: {reason}")
