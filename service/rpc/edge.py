"""The gRPC edge: finds the method of an RPC, and sends its answer or its refusal.

Every RPC is handled as a stream of raw bytes, also those of one message. So its client, token and
rate are checked before its message is read, and the time that reading takes is limited.
"""

import asyncio
import ipaddress
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any, Final, TypeVar
from uuid import uuid4

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.backend import Backend
from service.problems import Kind, Problem, try_later
from service.rpc.calls import Call, read_call
from service.rpc.health import HEALTH_SERVICE, Health
from service.rpc.messages import POOL, SERVICE, message_class, parse
from service.rpc.methods import STATUSES, Method, Methods
from service.rpc.reader import MessageReader, begin_to_read
from service.telemetry.tracing import HEADER as TRACE_HEADER

logger = logging.getLogger(__name__)

_CLIENT_LEFT: Final = 499
"""Status in the metrics of a call that its client cancelled."""

_WATCH_SECONDS: Final = 1.0
"""Interval at which a watched state is checked."""

T = TypeVar("T")

_Stream = Callable[[Call, Any], Awaitable[None]]


class RpcEdge(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC is not typed
    """Handles the RPCs of one worker."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        settings = backend.settings
        self._seconds = settings.deadline_seconds
        self._trusted = tuple(map(ipaddress.ip_network, settings.trusted_proxies))
        self._access = None if backend.access.is_open else backend.access
        self._reader = MessageReader(settings.max_body_bytes)
        self._methods = Methods(backend)
        self._health = Health(backend)
        self._open_streams = 0
        self.last_call = -math.inf
        """Time of the last call's beginning, on the event loop's clock."""
        self._waiting: set[asyncio.Task[Any]] = set()
        self._is_closing = False
        self._response = message_class("ModelStreamInferResponse")
        self._handlers: dict[str, Any] = {}
        for name, method in self._methods.table().items():
            self._add_unary(f"/{SERVICE}/{name}", method)
        self._add_unary(f"/{HEALTH_SERVICE}/Check", Method(self._health.check, is_open=True))
        self._add_stream(f"/{HEALTH_SERVICE}/Watch", self._watch, is_open=True)
        self._add_stream(f"/{SERVICE}/ModelStreamInfer", self._stream_infer)
        for service in (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection"):
            self._add_stream(f"/{service}/ServerReflectionInfo", self._reflect)
        self._reflection = reflection.aio.ReflectionServicer(
            (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME), _pool_of_all()
        )

    def service(self, details: Any) -> Any:
        """Return the handler of an RPC; None for an unknown one, which gRPC refuses."""
        handler = self._handlers.get(details.method)
        if handler is None and "SharedMemory" in details.method:
            return grpc.stream_stream_rpc_method_handler(_refuse_shared_memory)
        return handler

    def _add_unary(self, template: str, method: Method) -> None:
        handle = partial(self._unary, template, method)
        self._handlers[template] = grpc.stream_unary_rpc_method_handler(handle)

    def _add_stream(self, template: str, stream: _Stream, *, is_open: bool = False) -> None:
        handle = partial(self._stream, template, stream, is_open)
        self._handlers[template] = grpc.stream_stream_rpc_method_handler(handle)

    async def _unary(self, template: str, method: Method, _: Any, context: Any) -> bytes:
        """Answer an RPC of one message."""

        async def answer(call: Call) -> bytes:
            if self._access is not None and not method.is_open:
                self._access.check_rate(call.client)
                if not method.is_administration:
                    self._access.check_token(call.headers)
            return await method.answer(call, await self._reader.read(context, call.deadline))

        call = read_call(context, self._seconds, self._trusted)
        outcome = await self._conduct(template, call, answer, context)
        if isinstance(outcome, Problem):
            await self._abort(context, outcome)
        return outcome  # type: ignore[return-value]  # abort() raises

    async def _stream(
        self, template: str, stream: _Stream, is_open: bool, _: Any, context: Any
    ) -> None:
        """Check an RPC of many messages, then let ``stream`` answer it."""
        call = read_call(context, self._seconds, self._trusted)
        try:
            if self._access is not None and not is_open:
                self._access.check_rate(call.client)
                self._access.check_token(call.headers)
            await stream(call, context)
        except Problem as problem:
            self._backend.metrics.answered(template, problem.kind.status)
            self._backend.metrics.rejected.labels(problem.kind.slug).inc()
            await self._abort(context, problem)

    async def _conduct(
        self,
        template: str,
        call: Call,
        answer: Callable[[Call], Awaitable[bytes]],
        context: Any,
    ) -> bytes | Problem:
        """Return the answer of one message, or why it is refused. Count and record it."""
        metrics = self._backend.metrics
        started = perf_counter()
        self.last_call = asyncio.get_running_loop().time()
        status = _CLIENT_LEFT
        metrics.in_flight.inc()
        try:
            outcome: bytes | Problem = await answer(call)
            status = 200
        except Problem as problem:
            outcome, status = problem, problem.kind.status
        except Exception:  # last resort, so that the log describes every failure
            occurrence = uuid4().urn
            logger.exception("a call failed", extra={"context": {"instance": occurrence}})
            detail = f"an internal error; the server's log describes it under {occurrence}"
            outcome = Problem(Kind.INTERNAL, detail)
            status = outcome.kind.status
        finally:
            metrics.in_flight.dec()
            metrics.answered(template, status)
        seconds = perf_counter() - started
        metrics.took(template, seconds)
        if isinstance(outcome, Problem):
            metrics.rejected.labels(outcome.kind.slug).inc()
        parent = call.header(TRACE_HEADER)
        recorder = self._backend.recorder
        if parent is not None or recorder.is_on:
            traced = recorder.record("POST", template, status, seconds, call.client, parent)
            context.set_trailing_metadata([(key.decode(), value.decode()) for key, value in traced])
        return outcome

    async def _abort(self, context: Any, problem: Problem) -> None:
        """End an RPC with a problem's status. Raises gRPC's own exception."""
        more = [*(context.trailing_metadata() or ())]
        for name, value in problem.headers:
            if name == b"retry-after":
                milliseconds = 1000 * int(value)
                more.append(("grpc-retry-pushback-ms", str(milliseconds)))
        await context.abort(STATUSES[problem.kind], describe_problem(problem), tuple(more))

    async def _stream_infer(self, call: Call, context: Any) -> None:
        """Answer ``ModelStreamInfer``: every message, in order. Refusing one does not end it."""
        template = f"/{SERVICE}/ModelStreamInfer"
        if self._open_streams >= self._reader.most_slow:
            detail = f"{self._open_streams} streams are open already; try again in a second"
            raise try_later(Kind.QUEUE_FULL, detail)
        self._open_streams += 1
        try:
            while (message := await self._wait(begin_to_read(context))) is not grpc.aio.EOF:
                one = read_call(context, self._seconds, self._trusted)
                if self._access is not None:
                    self._access.check_rate(one.client)
                outcome = await self._conduct(
                    template, one, partial(self._infer, bytes(message)), context
                )
                response = self._response()
                if isinstance(outcome, Problem):
                    response.error_message = describe_problem(outcome)
                else:
                    response.infer_response.MergeFromString(outcome)
                await self._write(context, response.SerializeToString())
        finally:
            self._open_streams -= 1

    async def _infer(self, message: bytes, call: Call) -> bytes:
        return await self._methods.infer(call, message)

    async def _write(self, context: Any, message: bytes) -> None:
        """Send one message of a stream.

        Raises:
            Problem: 504 if the client does not read.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await context.write(message)
        except TimeoutError:
            detail = "the client did not read an answer in time"
            raise Problem(Kind.DEADLINE, detail) from None

    async def _wait(self, awaited: Awaitable[T]) -> T:
        """Await something that may never end.

        Raises:
            Problem: 503 if the worker is ending.
        """
        task = asyncio.current_task()
        if task is None:
            message = "a stream can only be served in a task"
            raise RuntimeError(message)
        self._waiting.add(task)
        try:
            return await awaited
        except asyncio.CancelledError:
            if not self._is_closing:
                raise
            task.uncancel()
            raise try_later(
                Kind.NOT_READY, "this worker is ending; open the stream again"
            ) from None
        finally:
            self._waiting.discard(task)

    def close_streams(self) -> None:
        """End the streams that wait for their client."""
        self._is_closing = True
        for task in self._waiting:
            task.cancel()

    async def _watch(self, call: Call, context: Any) -> None:
        """Answer the health service's ``Watch``: the state now, and whenever it changes."""
        message = await self._reader.read(context, call.deadline)
        sent = None
        while True:
            state = self._health.state(message)
            if state != sent:
                await self._write(context, state)
                sent = state
            await self._wait(asyncio.sleep(_WATCH_SECONDS))

    async def _reflect(self, _: Call, context: Any) -> None:
        async def requests() -> AsyncIterator[Any]:
            while (message := await self._wait(begin_to_read(context))) is not grpc.aio.EOF:
                yield parse(reflection_pb2.ServerReflectionRequest, message)

        async for response in self._reflection.ServerReflectionInfo(requests(), context):
            await self._write(context, response.SerializeToString())


async def _refuse_shared_memory(_: Any, context: Any) -> None:
    detail = "this server supports no shared memory: send tensors in the messages themselves"
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, detail)


def describe_problem(problem: Problem) -> str:
    """Return a problem as the message of a gRPC status."""
    return f"{problem.kind.title.lower()}: {problem.detail}"


def _pool_of_all() -> Any:
    """Return a descriptor pool with every service of this port, for reflection."""
    for module in (health_pb2, reflection_pb2):
        POOL.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return POOL
