"""Processes that a test starts, and their certain end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cifar10.environment import PROJECT_ROOT


def end_group(process: "subprocess.Popen[str] | subprocess.Popen[bytes]", grace: float = 0) -> None:
    """End a process and its children, which must be in a session of their own.

    With a ``grace`` they are asked to stop and killed after so many seconds. A group that has
    already ended is no error, so that the failure that ended it is the one that is reported.
    """
    if grace:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(grace)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def python_program(program: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a Python program with its output piped. It and its children are killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            end_group(process)
