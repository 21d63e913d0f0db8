"""Explanation added by ``/classify?explain=true``: the model's input tile and each stage's time."""

import io
from base64 import b64encode
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.batcher import Run


class StageClock:
    """Measures one request, stage by stage, in ms."""

    def __init__(self) -> None:
        self._started = self._last = perf_counter()
        self._stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Record the end of ``stage``, which began when the previous stage ended."""
        now = perf_counter()
        self._stages[stage] = (now - self._last) * 1e3
        self._last = now

    def read(self, run: Run) -> dict[str, float]:
        """Return the time of every stage, including those of ``run``, and the total until now."""
        return {
            **self._stages,
            "queue": run.queue_seconds * 1e3,
            "inference": run.inference_seconds * 1e3,
            "total": (perf_counter() - self._started) * 1e3,
        }


def explanation(tile: NDArray[np.uint8], clock: StageClock, run: Run) -> dict[str, Any]:
    """Return the answer's member ``explanation``.

    Args:
        tile: the model's input: uint8 (1, 32, 32, 3), RGB.
        clock: the request's clock.
        run: timing of the model's run that served the request.
    """
    timing = clock.read(run)
    buffer = io.BytesIO()
    Image.fromarray(tile[0]).save(buffer, "PNG")  # lossless, so the pixels are the model's
    return {
        "tile_png": b64encode(buffer.getvalue()).decode("ascii"),
        "timing_ms": timing,
        "batch_images": run.images,
    }
