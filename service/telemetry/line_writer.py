"""Write log lines in a separate thread, so that a blocked log cannot stop the service.

A log is a pipe or a file outside our control: its reader may stop reading or die, and its disk may
fill up. A write then blocks or fails. Only one thread per process writes; all others put their
lines into a bounded queue. Lines that do not fit in the queue, or cannot be written, are dropped
and counted. The count is logged once writing works again.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

QUEUE_BYTES: Final = 1 << 20

_PIPE_BUFFER_BYTES: Final = 4096
"""Largest write that is atomic: not interleaved with other processes' writes to the same pipe."""

FLUSH_SECONDS: Final = 1.0
REST_SECONDS: Final = 0.1


class LineWriter:
    """A bounded queue of lines and the thread that writes them.

    Args:
        descriptor: file descriptor to write to.
        drop_notice: returns the line that reports a number of dropped lines.
        queue_bytes: maximum size of the queue.
    """

    def __init__(
        self,
        descriptor: int,
        drop_notice: Callable[[int], bytes],
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._descriptor = descriptor
        self._drop_notice = drop_notice
        self._queue_bytes = queue_bytes
        self.on_dropped: Callable[[int], None] = lambda count: None
        """Called with the number of lines just dropped, in the thread that dropped them."""
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Start with an empty queue and no thread. Also called in a forked child, which lacks its
        parent's thread and must not write its parent's lines."""
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_writing = False
        self._unreported = 0
        """Number of lines dropped since the last drop notice was written."""
        self._is_blocked = False
        """Whether a flush has timed out since the last line was written."""
        self._thread: threading.Thread | None = None
        self._should_rest = False
        """Whether the thread ends once it has written what there is."""

    def put(self, line: bytes) -> None:
        """Queue one line, which includes its line end. Never blocks."""
        with self._changed:
            if self._waiting_bytes + len(line) > self._queue_bytes:
                self._unreported += 1
            else:
                self._lines.append(line)
                self._waiting_bytes += len(line)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
                return
        self._report_dropped(1)  # without the lock, because the callback may log lines itself

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines are written, for at most ``seconds``. After a timeout, do not wait
        again until a line has been written."""
        until = monotonic() + seconds
        with self._changed:
            while (self._lines or self._is_writing) and not self._is_blocked:
                self._is_blocked = not self._changed.wait(until - monotonic())

    def rest(self, seconds: float = REST_SECONDS) -> None:
        """Write what there is and end the thread; the next line starts another. If the thread
        cannot write its lines within ``seconds``, it continues."""
        self.flush(seconds)
        with self._changed:
            thread = self._thread
            if thread is None or self._is_blocked:
                return
            self._should_rest = True
            self._changed.notify_all()
        thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = self._is_blocked = False
                self._changed.notify_all()
                while not self._lines:
                    if self._should_rest:
                        self._thread, self._should_rest = None, False
                        return
                    self._changed.wait()
                unreported, self._unreported = self._unreported, 0
                lines = self._take()
                self._is_writing = True
            if unreported and not self._write(self._drop_notice(unreported)):
                with self._changed:
                    self._unreported += unreported
            if not self._write(b"".join(lines)):
                with self._changed:
                    self._unreported += len(lines)
                self._report_dropped(len(lines))

    def _report_dropped(self, count: int) -> None:
        with suppress(Exception):  # a failing callback must not stop the log
            self.on_dropped(count)

    def _take(self) -> list[bytes]:
        """Take the lines of the next write: at least one, and more while they fit in one atomic
        write."""
        lines: list[bytes] = []
        size = 0
        while self._lines and (not lines or size + len(self._lines[0]) <= _PIPE_BUFFER_BYTES):
            lines.append(self._lines.popleft())
            size += len(lines[-1])
        self._waiting_bytes -= size
        return lines

    def _write(self, data: bytes) -> bool:
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:  # no reader, no room, or closed
            return False
        return True
