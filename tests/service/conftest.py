"""Fixtures: an edge with real models, in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cifar10.store import ModelStore
from service.edge import Edge
from service.models import ModelSet
from service.settings import Settings

Behaviour = Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]


async def nothing_behind(scope: Any, receive: Any, send: Any) -> None:
    """Stands in for BentoML's application: answers the lifespan, and 418 to all requests."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def running(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    """Run ``edge`` through its lifespan. Yield a client once its models are loaded or have
    failed."""
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    started = asyncio.Event()

    async def send(message: dict[str, str]) -> None:
        if message["type"] == "lifespan.startup.complete":
            started.set()

    await messages.put({"type": "lifespan.startup"})
    life = asyncio.create_task(edge({"type": "lifespan"}, messages.get, send))
    await started.wait()
    transport = httpx.ASGITransport(edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        while await is_loading(client):
            await asyncio.sleep(0.01)
        yield client
    await messages.put({"type": "lifespan.shutdown"})
    await life


async def is_loading(client: httpx.AsyncClient) -> bool:
    """Return whether the edge is still loading, so not ready without an error."""
    answer = await client.get("/readyz")
    if answer.status_code == 200:
        return False
    problem = answer.json()
    reasons = problem["models"].values()
    if not reasons:  # a worker is missing: this one, which has not reported yet, or another
        return bool(problem["workers"]["ready"] == 0)
    return all(reason == "being loaded" for reason in reasons)


def make_edge(store: Path, **settings: Any) -> Edge:
    """Return an edge for the models of ``store``, on the CPU, with one worker."""
    chosen = Settings(**{"device": "cpu", "workers": 1, "default_model": "tiny_a", **settings})
    return Edge(nothing_behind, chosen, ModelSet(chosen, ModelStore(store)))


@pytest.fixture
def edge(tiny_store: Path) -> Edge:
    return make_edge(tiny_store)


@pytest.fixture
def run(edge: Edge) -> Callable[[Behaviour], Any]:
    """Run a coroutine function with a client of a ready edge."""

    def runner(behaviour: Behaviour) -> Any:
        async def main() -> Any:
            async with running(edge) as client:
                return await behaviour(client)

        return asyncio.run(main())

    return runner
