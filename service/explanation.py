"""What ``/classify?explain=true`` adds: the tile the model saw, and how long each stage took."""

import io
from base64 import b64encode
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.batcher import Run


class StageClock:
    """Times one request, stage by stage, in ms."""

    def __init__(self) -> None:
        self._started = self._last = perf_counter()
        self._stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """``stage`` has ended, and began when the one before it did."""
        now = perf_counter()
        self._stages[stage] = (now - self._last) * 1e3
        self._last = now

    def read(self, run: Run) -> dict[str, float]:
        """Every stage, those of ``run``, and the whole of it until now."""
        return {
            **self._stages,
            "queue": run.queue_seconds * 1e3,
            "inference": run.inference_seconds * 1e3,
            "total": (perf_counter() - self._started) * 1e3,
        }


def explanation(tile: NDArray[np.uint8], clock: StageClock, run: Run) -> dict[str, Any]:
    """The answer's member ``explanation``.

    Args:
        tile: what the model was given: uint8 (1, 32, 32, 3), RGB.
        clock: of the request.
        run: in which the model answered it.
    """
    timing = clock.read(run)
    buffer = io.BytesIO()
    Image.fromarray(tile[0]).save(buffer, "PNG")  # lossless: the same pixels
    return {
        "tile_png": b64encode(buffer.getvalue()).decode("ascii"),
        "timing_ms": timing,
        "batch_images": run.images,
    }
