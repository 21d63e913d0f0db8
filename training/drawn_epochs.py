"""Draw the random parts of each epoch: image order, Keras' seed and augmented images.

They depend on (seed, epoch) alone, so an epoch can be drawn in advance. Drawing takes seconds of a
core; if the device trains an epoch in less time, :class:`AheadOfTime` draws the next epochs in
separate processes.
"""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cifar10.machine import usable_cores
from training.augmentation import alternating_flips, augment
from training.recipes.schema import Augmentation

_MOST_PROCESSES: Final = 8


@dataclass(frozen=True)
class DrawnEpoch:
    """Random parts of one epoch."""

    order: NDArray[np.int64]
    """Index of each image in the dataset, (N,)."""
    keras_seed: int
    """Argument of ``keras.utils.set_random_seed`` before the epoch."""
    images: NDArray[np.uint8] | None
    """Augmented images in that order; None without augmentation."""


@dataclass(frozen=True)
class Asked:
    """Identifies an epoch to draw."""

    seed: int
    epoch: int
    augmentation: Augmentation | None


class Drawing:
    """Draws each epoch on demand."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def take(self, asked: Asked, following: tuple[Asked, ...] = ()) -> DrawnEpoch:
        """Return an epoch.

        Args:
            asked: the epoch to draw.
            following: the epochs that will be needed next, in order.
        """
        return draw_epoch(self._images, asked)


class AheadOfTime(Drawing):
    """Draws the following epochs while the device trains this one."""

    def __init__(self, images: NDArray[np.uint8], pool: ProcessPoolExecutor, ahead: int) -> None:
        super().__init__(images)
        self._pool = pool
        self._ahead = ahead
        self._started: dict[Asked, Future[DrawnEpoch]] = {}

    def take(self, asked: Asked, following: tuple[Asked, ...] = ()) -> DrawnEpoch:
        """Return an epoch, and start drawing those that follow."""
        wanted = [asked, *following[: self._ahead]]
        for other in list(self._started):
            if other not in wanted:  # its phase ended early
                self._started.pop(other).cancel()
        for one in wanted:
            if one.augmentation is not None and one not in self._started:
                self._started[one] = self._pool.submit(_draw_here, one)
        if asked in self._started:
            return self._started.pop(asked).result()
        return super().take(asked)


@contextmanager
def ahead_of_time(images: NDArray[np.uint8]) -> Iterator[Drawing]:
    """Draw epochs of ``images``, uint8 (N, 32, 32, 3), in as many processes as there are spare
    cores."""
    processes = max(1, min(_MOST_PROCESSES, usable_cores() - 1))
    # Spawned, not forked: the device's threads would not survive a fork.
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _keep, (images,))
    try:
        yield AheadOfTime(images, pool, processes)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def draw_epoch(images: NDArray[np.uint8], asked: Asked) -> DrawnEpoch:
    """Draw an epoch of ``images``, uint8 (N, 32, 32, 3), the whole training split in its order."""
    random = np.random.default_rng((asked.seed, asked.epoch))
    order = random.permutation(len(images))
    keras_seed = int(random.integers(2**31))
    augmentation = asked.augmentation
    if augmentation is None:
        return DrawnEpoch(order, keras_seed, None)
    flipped = None
    if augmentation.alternating:
        flipped = alternating_flips(len(order), asked.seed, asked.epoch)[order]
    changed = augment(images[order], augmentation, random, flipped)
    return DrawnEpoch(order, keras_seed, changed)


_kept: NDArray[np.uint8] | None = None
"""The training images, in a drawing process."""


def _keep(images: NDArray[np.uint8]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _kept
    _kept = images


def _end_with_parent() -> None:
    """End this process when the main process ends; otherwise it would wait for work."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw_here(asked: Asked) -> DrawnEpoch:
    if _kept is None:
        message = "a drawing process was not given the images"
        raise RuntimeError(message)
    return draw_epoch(_kept, asked)
