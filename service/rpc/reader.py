"""Read the messages of RPCs, with limits on their time and on their total memory while arriving.

gRPC gives a message to the application once it is whole, and keeps what has arrived meanwhile. No
header tells its size. A message that is not whole at once is slow; only a few slow ones may arrive
at a time, because each can take as much memory as the largest message.
"""

import asyncio
from typing import Any, Final

import grpc

from service.problems import Kind, Problem, malformed, try_later
from service.upload import MAX_ARRIVING_BYTES

PROMPT_SECONDS: Final = 0.25
"""Time after which a message that is still arriving counts as slow."""


class MessageReader:
    """Reads one message of each RPC.

    Args:
        max_bytes: size limit of a message.
    """

    def __init__(self, max_bytes: int) -> None:
        self.most_slow = max(1, MAX_ARRIVING_BYTES // max_bytes)
        """Maximum number of slow messages."""
        self._slow: set[asyncio.Task[Any]] = set()
        self._refused: dict[asyncio.Task[Any], Problem] = {}

    async def read(self, context: Any, deadline: float) -> bytes:
        """Return the message of an RPC that has one.

        Args:
            context: gRPC's context.
            deadline: time on the event loop's clock by which the message must be whole.

        Raises:
            Problem: 400 if there is no message, 408 if it does not arrive in time, 503 while too
                many slow messages are arriving.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            message = "a message can only be read in a task"
            raise RuntimeError(message)
        late = loop.call_at(deadline, self._end, task, _not_in_time())
        slow = loop.call_later(PROMPT_SECONDS, self._mark_slow, task)
        try:
            received = await begin_to_read(context)
        except asyncio.CancelledError:
            problem = self._refused.get(task)
            if problem is None:
                raise
            task.uncancel()
            raise problem from None
        finally:
            late.cancel()
            slow.cancel()
            self._slow.discard(task)
            self._refused.pop(task, None)
        if received is grpc.aio.EOF:
            detail = "the call ended without a message"
            raise malformed(detail)
        return bytes(received)

    def _mark_slow(self, task: asyncio.Task[Any]) -> None:
        if len(self._slow) < self.most_slow:
            self._slow.add(task)
        else:
            detail = "too many slow messages are arriving at once; try again in a second"
            self._end(task, try_later(Kind.QUEUE_FULL, detail))

    def _end(self, task: asyncio.Task[Any], problem: Problem) -> None:
        if task not in self._refused:
            self._refused[task] = problem
            task.cancel()


def _not_in_time() -> Problem:
    return Problem(Kind.BODY_TIMEOUT, "the message did not arrive before the call's deadline")


def begin_to_read(context: Any) -> "asyncio.Future[Any]":
    """Begin to read a message of an RPC. If its reader is cancelled, the reading itself goes on to
    the end of the call: gRPC never frees what arrives for a reading that was cancelled."""
    return asyncio.shield(context.read())
