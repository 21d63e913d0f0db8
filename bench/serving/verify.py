"""End-to-end check: classify every test image on the server and in this process.

The accuracy measured in process holds for the server only if the server decodes, labels and
predicts identically. Images are sent as PNG, which is lossless.
"""

import contextlib
import http.client
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bench.load.bodies import encode_png
from bench.measure.progress import Progress, silent
from bench.rows.kinds.accuracy import VerifyMeasurement
from bench.serving.load import classify_route
from cifar10.errors import BenchError

CONNECTIONS: Final = 8
NO_ANSWER: Final = -1
_SHOWN_DIFFERENCES: Final = 20


def classes_from_server(
    url: str, images: NDArray[np.uint8], *, model: str | None, progress: Progress = silent
) -> NDArray[np.int64]:
    """Request the class of every image from the server over :data:`CONNECTIONS` connections.

    Args:
        url: URL of the server, without a path.
        images: uint8 (N, height, width, 3), RGB.
        model: model to request; None for the server's default.

    Returns:
        int64 (N,): class ids, or :data:`NO_ANSWER` if the response was not a 200 with a class.

    Raises:
        BenchError: the server stopped responding.
    """
    found = np.full(len(images), NO_ANSWER, np.int64)
    route = classify_route(model)

    def ask_every(first: int) -> None:
        """Request every eighth image over one connection."""
        with contextlib.closing(_connection(url)) as connection:
            for index in range(first, len(images), CONNECTIONS):
                if stopping.is_set():
                    return
                if index % 100 == 0:
                    progress("verify", index, len(images))
                found[index] = _ask(connection, route, encode_png(images[index]))

    stopping = threading.Event()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            for _ in pool.map(ask_every, range(CONNECTIONS)):
                pass
        except (OSError, http.client.HTTPException) as error:
            message = f"the server stopped answering: {type(error).__name__}: {error}"
            raise BenchError(message) from error
        finally:
            stopping.set()  # an error or Ctrl-C stops the other threads too
    progress("verify", len(images), len(images))
    return found


def _connection(url: str) -> http.client.HTTPConnection:
    """Return a connection to keep open, which costs several times less than a general client."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=30)


def _ask(connection: http.client.HTTPConnection, route: str, body: bytes) -> int:
    connection.request("POST", route, body, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != http.client.OK:
        return NO_ANSWER
    class_id = json.loads(content).get("class_id")
    return class_id if isinstance(class_id, int) else NO_ANSWER


def compare_answers(
    from_server: NDArray[np.int64],
    in_process: NDArray[np.int64],
    labels: NDArray[np.integer],
    *,
    device: str,
    card_accuracy: float | None,
) -> VerifyMeasurement:
    """Count the images on which both agree, and those that each classifies correctly.

    Args:
        from_server: int64 (N,), 0–9 or :data:`NO_ANSWER`.
        in_process: int64 (N,), 0–9.
        labels: uint8 (N,), the true classes.
        device: device that the server reports for the model.
        card_accuracy: accuracy from the card for the same images, 0–1; None if it has none.
    """
    same = from_server == in_process
    differing: Sequence[int] = np.flatnonzero(~same)[:_SHOWN_DIFFERENCES].tolist()
    return VerifyMeasurement(
        device=device,
        images=len(labels),
        answered=int((from_server != NO_ANSWER).sum()),
        same_top1=int(same.sum()),
        server_correct=int((from_server == labels).sum()),
        in_process_correct=int((in_process == labels).sum()),
        card_correct=None if card_accuracy is None else round(card_accuracy * len(labels)),
        differing=tuple(differing),
    )
