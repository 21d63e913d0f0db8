"""An edge with real models, in this process."""

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
    """Stands where BentoML's application is: answers the lifespan, and 418 to all else."""
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
    """``edge`` through its lifespan, and a client for it once its models are loaded or unfit."""
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
    """Whether it is not ready and nothing is wrong."""
    answer = await client.get("/readyz")
    if answer.status_code == 200:
        return False
    problem = answer.json()
    reasons = problem["models"].values()
    if not reasons:  # a worker is missing: this one, which is about to tell, or another
        return bool(problem["workers"]["ready"] == 0)
    return all(reason == "being loaded" for reason in reasons)


def make_edge(store: Path, **settings: Any) -> Edge:
    """An edge over ``store``, on the CPU, of a server with one worker."""
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
