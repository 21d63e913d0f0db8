"""Feeds hostile inputs to the service in one process, without sockets; a program of its own.

Each input gets a connection of the service's own protocol class, with a transport in memory, so
that the HTTP parser, the application and the decoders all run as they do behind a socket. A crash
ends this process and not the one that asks for it (:mod:`bench.chaos.fuzz`), which finds the number
of the input in the progress file.

The service is named by import strings, as servers name an application; nothing of it is imported
here. To repeat one input with its answer:
``python -m bench.chaos.in_process SEED NUMBER 1 MODEL FOLDER``.
"""

import asyncio
import json
import mmap
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import uvicorn
from uvicorn.importer import import_from_string
from uvicorn.loops.auto import auto_loop_factory
from uvicorn.server import ServerState

from bench.chaos.inputs import Fuzzer, HostileInput, each
from bench.chaos.raw import Answer, answers_in, request_bytes

APPLICATION: Final = "service.app:Cifar10"
CONNECTION: Final = "service.workers.connection:Connection"
PLACE: Final = "service.workers.board:Place"

PROGRESS_FILE: Final = "progress"
SNAPSHOT_FILE: Final = "snapshot.json"
_SNAPSHOT_EVERY: Final = 1_000
_MOST_EXAMPLES: Final = 20
_PIECE_BYTES: Final = 40_000
_PATIENCE_SECONDS: Final = 30.0
"""Time for one input; the service's own deadline is ten seconds."""
_PATIENT_TURNS: Final = 12
"""Turns of the event loop in which the service may refuse a request whose body is not there yet."""
_READY_SECONDS: Final = 120.0
_PROBLEM: Final = "application/problem+json"
UNDESIGNED: Final = "UNDESIGNED"


@dataclass
class Snapshot:
    """What has been found so far."""

    following: int
    """Number of the next input."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """``kind: outcome`` → inputs."""
    statuses: Counter[int] = field(default_factory=Counter)
    undesigned: list[str] = field(default_factory=list)
    """The first inputs whose outcome is not by design: number, kind and outcome."""
    longest_cpu_s: float = 0.0
    longest_number: int = -1
    memory: list[int] = field(default_factory=list)

    def to_json(self) -> str:
        """For the process that asked."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "Snapshot":
        """Read :meth:`to_json`."""
        fields = json.loads(text)
        fields["outcomes"] = Counter(fields["outcomes"])
        statuses = {int(status): count for status, count in fields["statuses"].items()}
        return cls(**{**fields, "statuses": Counter(statuses)})


class MemoryTransport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 40_000), "sockname": ("127.0.0.1", 3_000)})
        self.written = bytearray()
        self.changed = asyncio.Event()
        self._protocol: asyncio.BaseProtocol | None = None
        self._closing = False
        self._reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Whom to tell of the end."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol, which must have been set."""
        if self._protocol is None:
            message = "the transport has no protocol"
            raise RuntimeError(message)
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep ``data``, unless the connection is closing."""
        if not self._closing:
            self.written += data
        self.changed.set()

    def close(self) -> None:
        """End the connection in the next turn of the event loop, as asyncio does."""
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.get_protocol().connection_lost, None)
        self.changed.set()

    def abort(self) -> None:
        """As :meth:`close`."""
        self.close()

    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self._closing

    def pause_reading(self) -> None:
        """Take no more input for now."""
        self._reading = False

    def resume_reading(self) -> None:
        """Take input again."""
        self._reading = True
        self.changed.set()

    def is_reading(self) -> bool:
        """Whether input is taken now."""
        return self._reading and not self._closing

    def get_write_buffer_size(self) -> int:
        """Nothing waits to be written."""
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high) in bytes, as asyncio's."""
        return 16_384, 65_536

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Without effect: nothing waits."""

    def can_write_eof(self) -> bool:
        """Both sides are in memory."""
        return True

    def write_eof(self) -> None:
        """The server ends its side."""
        self.changed.set()


class Driver:
    """The service, ready to be fed."""

    def __init__(self) -> None:
        self._connection: Any = import_from_string(CONNECTION)
        self._connection.place = import_from_string(PLACE).alone()
        self._connection.count = staticmethod(lambda kind: None)
        self._config = uvicorn.Config(
            import_from_string(APPLICATION).to_asgi(),
            http=self._connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._state = ServerState()
        self._lifespan: Any = None
        self._unhandled: list[str] = []

    async def start(self) -> None:
        """Load the models.

        Raises:
            RuntimeError: the service is not ready in time.
        """
        self._config.load()
        self._lifespan = self._config.lifespan_class(self._config)
        await self._lifespan.startup()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._note)
        until = loop.time() + _READY_SECONDS
        ready = HostileInput("ready", request_bytes("GET", "/readyz"))
        while (await self.feed(ready))[0] != [200]:
            if loop.time() > until:
                message = f"the service was not ready within {_READY_SECONDS:g} s"
                raise RuntimeError(message)
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End the service."""
        await self._lifespan.shutdown()

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unhandled.append(repr(context.get("exception") or context["message"]))

    async def feed(self, one: HostileInput) -> tuple[list[int], str]:
        """Feed one input: (the answers' statuses, the outcome)."""
        transport = MemoryTransport()
        connection = self._connection(self._config, self._state, self._lifespan.state)
        transport.set_protocol(connection)
        self._unhandled.clear()
        raised = ""
        try:
            connection.connection_made(transport)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await _send(connection, transport, one.content)
                await _until_idle(connection, transport)
                ended_by_server = transport.is_closing()
                transport.close()
                while self._state.tasks:
                    await asyncio.wait(self._state.tasks)
                await asyncio.sleep(0)
        except TimeoutError:
            return [], f"{UNDESIGNED}: nothing after {_PATIENCE_SECONDS:g} s"
        except Exception as error:  # whatever the protocol lets through is a finding
            raised = repr(error)
            ended_by_server = True
        answers, rest = answers_in(bytes(transport.written))
        statuses = [answer.status for answer in answers]
        if raised or self._unhandled:
            return statuses, f"{UNDESIGNED}: {raised or self._unhandled[0]}"
        if rest:
            return statuses, f"{UNDESIGNED}: half an answer"
        return statuses, outcome_of(answers, one.well_formed, ended_by_server)


async def _send(connection: Any, transport: MemoryTransport, content: bytes) -> None:
    for start in range(0, len(content), _PIECE_BYTES):
        while not transport.is_reading() and not transport.is_closing():
            transport.changed.clear()
            await transport.changed.wait()
        if transport.is_closing():
            return
        connection.data_received(content[start : start + _PIECE_BYTES])
        await asyncio.sleep(0)


async def _until_idle(connection: Any, transport: MemoryTransport) -> None:
    """Wait until the service has answered, or waits for what will never come."""
    turns = 0
    while not transport.is_closing():
        cycle = connection.cycle
        busy = cycle is not None and not cycle.response_complete
        if not busy and not connection.pipeline:
            if not connection.flow.holds:
                return
            await asyncio.sleep(0)  # the next of the requests that it holds begins
            continue
        if busy and cycle.more_body:
            turns += 1
            if turns > _PATIENT_TURNS:
                return
            await asyncio.sleep(0)
            continue
        transport.changed.clear()
        await transport.changed.wait()
        await asyncio.sleep(0)


def outcome_of(answers: list[Answer], must_be_answered: bool, ended_by_server: bool) -> str:
    """The outcome of one input in a few words; it starts with :data:`UNDESIGNED` where the service
    may not answer so."""
    labels = [label_of(answer) for answer in answers]
    bad = [label for label in labels if label.startswith(UNDESIGNED)]
    if bad:
        return bad[0]
    if labels:
        return labels[0]
    if must_be_answered:
        return f"{UNDESIGNED}: no answer"
    return "closed without an answer" if ended_by_server else "incomplete, the client left"


def label_of(answer: Answer) -> str:
    """Status and kind of refusal of one answer."""
    status = answer.status
    if status < 400:
        return str(status)
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return f"{UNDESIGNED}: {status} without a problem document"
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    if media_type == _PROBLEM:
        kind = str(document.get("type", "")).rpartition(":")[2]
        sound = document.get("status") == status and bool(kind) and bool(document.get("detail"))
    else:  # the v2 protocol's own form
        kind = "v2"
        sound = isinstance(document.get("error"), str)
    if not sound or (status >= 500 and status not in (503, 504)):
        return f"{UNDESIGNED}: {status} {kind}"
    return f"{status} {kind}"


async def feed_all(driver: Driver, fuzzer: Fuzzer, first: int, count: int, folder: Path) -> None:
    """Feed ``count`` inputs from ``first``; progress and snapshots go to ``folder``."""
    found = Snapshot(first)
    process, parent = psutil.Process(), os.getppid()
    with (folder / PROGRESS_FILE).open("r+b") as file, mmap.mmap(file.fileno(), 8) as progress:
        for number, one in each(fuzzer, first, count):
            progress[:8] = number.to_bytes(8, "little")
            started = time.process_time()
            statuses, outcome = await driver.feed(one)
            taken = time.process_time() - started
            found.following = number + 1
            found.statuses.update(statuses)
            found.outcomes[f"{one.kind}: {outcome}"] += 1
            if taken > found.longest_cpu_s:
                found.longest_cpu_s, found.longest_number = taken, number
            if outcome.startswith(UNDESIGNED) and len(found.undesigned) < _MOST_EXAMPLES:
                found.undesigned.append(f"{number} ({one.kind}): {outcome}")
            if found.following % _SNAPSHOT_EVERY == 0 or found.following == first + count:
                found.memory.append(process.memory_info().rss)
                _write(folder / SNAPSHOT_FILE, found.to_json())
                if os.getppid() != parent:  # killed, and could not end this process
                    return


def _write(path: Path, text: str) -> None:
    """Replace the file at once, so that no reader sees half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


async def _main(seed: int, first: int, count: int, model: str, folder: Path) -> None:
    driver = Driver()
    await driver.start()
    await feed_all(driver, Fuzzer(seed, model), first, count, folder)
    await driver.stop()


if __name__ == "__main__":
    _seed, _first, _count = map(int, sys.argv[1:4])
    _folder = Path(sys.argv[5])
    (_folder / PROGRESS_FILE).write_bytes(bytes(8))
    with asyncio.Runner(loop_factory=auto_loop_factory()) as _runner:
        _runner.run(_main(_seed, _first, _count, sys.argv[4], _folder))
    if _count == 1:
        print((_folder / SNAPSHOT_FILE).read_text())  # noqa: T201 - for a person
