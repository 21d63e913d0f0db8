"""Fixtures: an edge with real models and its gRPC server, in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from service.rpc.messages import SERVICE, message_class
from service.rpc.server import RpcServer
from tests.service.conftest import make_edge, running

PICTURES = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), np.uint8)

Infer = message_class("ModelInferRequest")
Input = message_class("ModelInferRequest.InferInputTensor")
Output = message_class("ModelInferRequest.InferRequestedOutputTensor")
Parameter = message_class("InferParameter")

_RESPONSES = {"Infer": "ModelInferResponse", "StreamInfer": "ModelStreamInferResponse"}


class Client:
    """Calls RPCs by name, with and without our messages."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def __call__(self, method: str, request: Any = None, **options: Any) -> Any:
        """Return the response to ``request``, which defaults to an empty one."""
        name = method.removeprefix("Model") if method == "ModelInfer" else method
        response = message_class(_RESPONSES.get(name, f"{method}Response"))
        if request is None:
            request = message_class(f"{method}Request")()
        call = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=None if isinstance(request, bytes) else Infer.SerializeToString,
            response_deserializer=response.FromString,
        )
        return await call(request, **options)


@asynccontextmanager
async def serving(store: Path, **settings: Any) -> AsyncIterator[RpcServer]:
    """Run an edge with its gRPC server on a free port."""
    edge = make_edge(store, **settings)
    async with running(edge):
        server = RpcServer(edge.backend, "127.0.0.1:0", {})
        await server.start()
        try:
            yield server
        finally:
            await server.stop(0)


@asynccontextmanager
async def connected(server: RpcServer, **options: Any) -> AsyncIterator[Client]:
    """Connect a client with the largest messages allowed."""
    sizes = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{server.port}", options=sizes, **options
    ) as channel:
        yield Client(channel)


@pytest.fixture
def call(tiny_store: Path) -> Callable[..., Any]:
    """Run a coroutine function with a client of a ready server, which has ``settings``."""

    def runner(behaviour: Callable[[Client], Awaitable[Any]], **settings: Any) -> Any:
        async def main() -> Any:
            async with serving(tiny_store, **settings) as server, connected(server) as client:
                return await behaviour(client)

        return asyncio.run(main())

    return runner


def infer(images: np.ndarray = PICTURES, model: str = "tiny_b", **fields: Any) -> Any:
    """Return a request for raw pixels; ``fields`` replace its own."""
    tensor = Input(name="image", datatype="UINT8", shape=images.shape)
    raw = [images.tobytes()]
    return Infer(**{"model_name": model, "inputs": [tensor], "raw_input_contents": raw} | fields)


async def status_of(awaitable: Awaitable[Any]) -> grpc.StatusCode:
    """Return the status of a call, which may fail."""
    try:
        await awaitable
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
