"""Explanation added by ``/classify?explain=true``: the model's input tile and each stage's time."""

import io
from base64 import b64encode
from time import perf_counter
from typing import Any, Final

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


PNG_SECONDS_PER_PIXEL: Final = 250e-9
"""Time of :func:`tile_png` per pixel."""


def tile_png(tile: NDArray[np.uint8]) -> str:
    """Return a model's input, uint8 (1, height, width, 3), RGB, as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(tile[0]).save(buffer, "PNG")  # lossless, so the pixels are the model's
    return b64encode(buffer.getvalue()).decode("ascii")


def explanation(png: str, clock: StageClock, run: Run) -> dict[str, Any]:
    """Return the answer's member ``explanation``.

    Args:
        png: the model's input, as :func:`tile_png` returns it.
        clock: the request's clock.
        run: timing of the model's run that served the request.
    """
    return {"tile_png": png, "timing_ms": clock.read(run), "batch_images": run.images}
