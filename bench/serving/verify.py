"""The end-to-end check: every test image through the running server, against this process.

If the server decoded, labelled or predicted in any other way than the code that measured the
accuracy, that accuracy would not be the server's. Images travel as PNG, so no pixel changes on
the way.
"""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Sequence
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
    """Ask the server for the class of every image, over a handful of connections.

    Args:
        url: of the server, without a path.
        images: uint8 (N, 32, 32, 3), RGB.
        model: which one to ask for; None for the server's default.
        progress: told how many images are done.

    Returns:
        int64 (N,): 0–9, or :data:`NO_ANSWER` where the answer was not a 200 with a class.

    Raises:
        BenchError: the server went away.
    """
    found = np.full(len(images), NO_ANSWER, np.int64)
    indices = iter(range(len(images)))
    taking = threading.Lock()

    def ask_until_done() -> None:
        with _connection(url) as connection:
            while True:
                with taking:  # each image is taken once
                    index = next(indices, None)
                if index is None:
                    return
                if index % 100 == 0:
                    progress("verify", index, len(images))
                found[index] = _ask(connection, classify_route(model), encode_png(images[index]))

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        workers = [threads.submit(ask_until_done) for _ in range(CONNECTIONS)]
        try:
            for worker in workers:
                worker.result()
        except (OSError, http.client.HTTPException) as error:
            message = f"the server stopped answering: {type(error).__name__}: {error}"
            raise BenchError(message) from error
        finally:
            with taking:
                indices = iter(())  # an error or Ctrl-C ends the other threads too
    progress("verify", len(images), len(images))
    return found


@contextlib.contextmanager
def _connection(url: str) -> Iterator[http.client.HTTPConnection]:
    """Kept open between requests; several times cheaper than a full-grown client."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=30)) as connection:
        yield connection


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
    labels: NDArray[np.uint8],
    *,
    device: str,
    card_accuracy: float | None,
) -> VerifyMeasurement:
    """Count where the two agree, and how many each has right.

    Args:
        from_server: int64 (N,), 0–9 or :data:`NO_ANSWER`.
        in_process: int64 (N,), 0–9.
        labels: uint8 (N,), the true classes.
        device: where the server says the model runs.
        card_accuracy: 0–1 on these very images; None when the card has none.
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
