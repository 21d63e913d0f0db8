"""Trial ``pipelining``: megabytes of small requests sent on one connection without waiting."""

import re
import selectors
import socket
import time
from collections import Counter
from typing import Final

from bench.chaos.attack import Attack, attack_trial
from bench.chaos.raw import AttackResult, Target, connect

REQUEST: Final = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
BYTES: Final = 12_000_000
_READERS: Final = 1
_NEVER_READERS: Final = 2
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def wage(target: Target) -> AttackResult:
    """Send 12 MB of requests on each of three connections, one of which reads the responses."""
    data = memoryview(REQUEST * (BYTES // len(REQUEST)))
    until = time.monotonic() + target.seconds
    statuses: Counter[int] = Counter()
    sent: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        try:
            for number in range(_READERS + _NEVER_READERS):
                one = connect(target)
                one.setblocking(False)
                reads = selectors.EVENT_READ if number < _READERS else 0
                selector.register(one, selectors.EVENT_WRITE | reads, data=one)
                sent[one] = 0
            while selector.get_map() and (left := until - time.monotonic()) > 0:
                for key, events in selector.select(timeout=min(1.0, left)):
                    one = key.data
                    if not _turn(one, events, data, sent, statuses):
                        selector.unregister(one)
        finally:
            for one in sent:
                one.close()
    return AttackResult(statuses, {"pipelined_mb_sent": sum(sent.values()) / 1e6})


def _turn(
    one: socket.socket,
    events: int,
    data: memoryview,
    sent: dict[socket.socket, int],
    statuses: Counter[int],
) -> bool:
    """Send and read as much as possible; return whether the connection is still usable."""
    try:
        if events & selectors.EVENT_READ:
            received = one.recv(1 << 18)
            if not received:
                return False
            statuses.update(int(status) for status in _STATUS.findall(received))
        if events & selectors.EVENT_WRITE and sent[one] < len(data):
            sent[one] += one.send(data[sent[one] : sent[one] + (1 << 18)])
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True


TRIAL: Final = attack_trial("pipelining", "Pipelined requests without end", Attack(wage))
