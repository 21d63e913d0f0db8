"""State of one worker, shared by its HTTP and gRPC edges."""

from dataclasses import dataclass

from service.access import Access
from service.inference import Inference
from service.models import ModelSet
from service.reload import Reloader
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.record import Recorder
from service.workers.board import Board, Place


@dataclass(frozen=True)
class Backend:
    """The models of one worker and the objects that serve them."""

    settings: Settings
    models: ModelSet
    metrics: Metrics
    inference: Inference
    reloader: Reloader
    recorder: Recorder
    access: Access
    board: Board

    @classmethod
    def of(cls, settings: Settings, models: ModelSet, place: Place, rate_key: bytes) -> "Backend":
        """Return the backend of a worker.

        Args:
            settings: the server's settings.
            models: the models to load.
            place: the worker's place on the board.
            rate_key: key of the rate limit's address hash, the same in all workers.
        """
        metrics = Metrics()
        inference = Inference(settings, metrics)
        return cls(
            settings,
            models,
            metrics,
            inference,
            Reloader(settings, models, place, metrics, inference.warm_up_thread),
            Recorder(settings),
            Access(settings, place.board, rate_key),
            place.board,
        )

    def is_fit(self) -> bool:
        """Return whether every model is ready and no decoder is stuck."""
        return not self.models.unfit and self.inference.stuck() is None
