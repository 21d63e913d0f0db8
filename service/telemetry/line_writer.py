"""Writes log lines in a thread of their own, so that no log can stop the service.

A log is a pipe or a file that others own: its reader may stop reading, die, or fill the disk. A
write then blocks or fails. Here that happens to one thread per process; the others leave their
lines in a bounded queue. What does not fit in the queue, or cannot be written, is dropped and
counted, and the count is written when lines go through again.
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
"""Writes of at most this are not interleaved with those of other processes to the same pipe."""

FLUSH_SECONDS: Final = 1.0
REST_SECONDS: Final = 0.1


class LineWriter:
    """A bounded queue of lines and the thread that writes them.

    Args:
        descriptor: where to write.
        drop_notice: makes the line that tells how many were dropped.
        queue_bytes: bound of the queue.
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
        """Called with each number of lines dropped, in the thread that notices."""
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Begin with an empty queue and no thread; a forked child has neither its parent's thread
        nor any business with its parent's lines."""
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_writing = False
        self._untold = 0
        self._is_blocked = False
        """Whether a flush has waited in vain since the last line was written."""
        self._thread: threading.Thread | None = None
        self._should_rest = False
        """Whether the thread ends once it has written what there is."""

    def put(self, line: bytes) -> None:
        """Queue one line, with its line end; never wait."""
        with self._changed:
            if self._waiting_bytes + len(line) > self._queue_bytes:
                self._untold += 1
            else:
                self._lines.append(line)
                self._waiting_bytes += len(line)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
                return
        self._tell_dropped(1)  # not under the lock, which the callback's own log lines would take

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines are written, for at most ``seconds``, and not again while the log is
        blocked."""
        until = monotonic() + seconds
        with self._changed:
            while (self._lines or self._is_writing) and not self._is_blocked:
                self._is_blocked = not self._changed.wait(until - monotonic())

    def rest(self, seconds: float = REST_SECONDS) -> None:
        """Write what there is and end the thread; the next line starts another. A thread that does
        not get rid of its lines within ``seconds`` goes on."""
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
                untold, self._untold = self._untold, 0
                lines = self._take()
                self._is_writing = True
            if untold and not self._write(self._drop_notice(untold)):
                with self._changed:
                    self._untold += untold
            if not self._write(b"".join(lines)):
                with self._changed:
                    self._untold += len(lines)
                self._tell_dropped(len(lines))

    def _tell_dropped(self, count: int) -> None:
        with suppress(Exception):  # a callback that fails must not end the log
            self.on_dropped(count)

    def _take(self) -> list[bytes]:
        """Take whole lines for one write: at least one, and more while the pipe buffer has room."""
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
