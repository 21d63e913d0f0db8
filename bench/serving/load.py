"""Load test over HTTP: response times, and the server's CPU time a request.

In the closed loop, each of ``users`` clients sends its next request after the last response. The
rate is therefore the server's maximum, and the response times are those at saturation. A slow
response delays the requests after it (coordinated omission), so clients that arrive independently
would see other times.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx
import numpy as np
from numpy.typing import NDArray

from bench.load.bodies import encode_png
from bench.load.drive import Driven
from bench.load.locust import LoadPlan, run_locust
from bench.load.sent import NO_ANSWER, OK
from bench.measure.progress import Progress, silent
from bench.rows.kinds.service import RESPONSE_TIME_STEP_US, LoadMeasurement
from bench.rows.row import device_of
from bench.serving.process import Server, is_ready
from cifar10.errors import BenchError

IMAGE_COUNT: Final = 1_000
"""Number of different images posted in a load run."""

_SHOWN_BODY: Final = 300


@dataclass(frozen=True)
class Served:
    """Model that the server says it used."""

    model: str
    digest: str
    device: str
    """The device of a row (:func:`bench.rows.row.device_of`)."""


def ask_what_is_served(url: str, image: NDArray[np.uint8], model: str | None) -> Served:
    """Post one image and return the model that answers, as proof of what is measured.

    Raises:
        BenchError: there is no response, or it breaks the API contract.
    """
    try:
        answer = httpx.post(
            f"{url}{classify_route(model)}",
            content=encode_png(image),
            headers={"Content-Type": "image/png"},
            timeout=30,
        )
        models = httpx.get(f"{url}/models", timeout=30)
    except httpx.HTTPError as error:
        message = f"no response from {url}: {error}. Is the server running?"
        raise BenchError(message) from error
    if answer.status_code != OK:
        message = f"{url} answered {answer.status_code} to an image: {answer.text[:_SHOWN_BODY]}"
        raise BenchError(message)
    try:
        body = answer.json()
        name, device = str(body["model"]), str(body["device"])
        for one in models.json().get("models", ()):
            if one["name"] == name:
                device = device_of(one["provider"])
        return Served(name, str(body["digest"]), device)
    except (ValueError, KeyError, TypeError) as error:
        message = (
            f"{url} does not answer as /classify and /models should (model, digest, device): "
            f"{answer.text[:_SHOWN_BODY]}"
        )
        raise BenchError(message) from error


def classify_route(model: str | None) -> str:
    """Return path and query for ``model``; None means the server's default."""
    return "/classify" if model is None else f"/classify?model={model}"


def measure_load(
    url: str,
    images: NDArray[np.uint8],
    plan: LoadPlan,
    *,
    model: str | None,
    device: str,
    server: Server | None = None,
    progress: Progress = silent,
) -> tuple[LoadMeasurement, bool]:
    """Run load against the server.

    Args:
        url: URL of the server.
        images: uint8 (N, height, width, 3), RGB; real test images.
        model: model to request; None for the server's default.
        device: device that the server reports for the model.
        server: the server's process if it was started here; its CPU time is then measured.
        progress: receives the seconds that have passed.

    Returns:
        The measurement, and whether Ctrl-C cut it short.

    Raises:
        BenchError: the server died or stopped responding, or no request succeeded after the
            warm-up.
    """
    check: Callable[[], None] = server.check_alive if server is not None else lambda: None
    cpu_before = server.cpu_seconds() if server is not None else 0.0
    driven, interrupted = run_locust(
        url,
        images[:IMAGE_COUNT],
        plan,
        route=classify_route(model),
        check=check,
        progress=progress,
    )
    check()
    if not is_ready(url):
        message = f"the server at {url} no longer answers /readyz after the load run"
        raise BenchError(message)
    cpu_seconds = server.cpu_seconds() - cpu_before if server is not None else None
    try:
        found = summarise(driven, plan, device=device, server_cpu_seconds=cpu_seconds)
    except BenchError:
        if interrupted:  # interrupted during the warm-up: nothing was measured, and nothing failed
            raise KeyboardInterrupt from None
        raise
    return found, interrupted


def summarise(
    driven: Driven, plan: LoadPlan, *, device: str, server_cpu_seconds: float | None
) -> LoadMeasurement:
    """Return the row of a load run, without its warm-up.

    Raises:
        BenchError: no request succeeded after the warm-up.
    """
    whole, warm_up_s = driven.sent, plan.warm_up_seconds
    if not whole.queries:
        message = "the load generator sent no request"
        raise BenchError(message)
    sent = whole.after(warm_up_s)
    statuses = Counter(str(status) if status else "no answer" for status in sent.status)
    if not sent.answered:
        message = f"no request succeeded after the warm-up: {dict(statuses)}"
        raise BenchError(message)
    seconds = float(sent.done_s.max()) - warm_up_s
    steps = np.rint(sent.times_ms * 1e3 / RESPONSE_TIME_STEP_US).astype(np.int64)
    values, counts = np.unique(steps, return_counts=True)
    ended = sent.done_s[sent.succeeded] - warm_up_s
    per_second = np.bincount(np.floor(ended).astype(np.int64))
    return LoadMeasurement(
        device=device,
        users=plan.users,
        seconds=round(seconds, 3),
        warm_up_seconds=plan.warm_up_seconds,
        warm_up_requests=whole.queries - sent.queries,
        status_counts=dict(sorted(statuses.items())),
        response_time_counts=tuple(
            (int(value), int(count)) for value, count in zip(values, counts, strict=True)
        ),
        requests_per_second=tuple(int(count) for count in per_second[: int(seconds)]),
        generator_cpu_share=round(driven.cpu_share, 4),
        server_cpu_seconds=None if server_cpu_seconds is None else round(server_cpu_seconds, 2),
        server_requests=int((whole.status != NO_ANSWER).sum()),
        rate_per_s=plan.rate_per_s,
        shape=None if plan.rate_per_s is None else plan.shape,
    )
