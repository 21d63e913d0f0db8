"""Scenarios of the drill: each does one thing to the replicas while requests arrive.

A new scenario is one coroutine and one entry in :data:`SCENARIOS`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.fleet.balancer import Balancer
from bench.fleet.replicas import Replica
from cifar10.errors import BenchError

OUT_SECONDS: Final = 3.0
"""Promised time in which a replica that does not answer is out of rotation."""
_PROPAGATION_SECONDS: Final = 1.0
_PRE_STOP_SECONDS: Final = 3.0
_FAULT_SECONDS: Final = 8.0
_LOOK_SECONDS: Final = 0.02
_GIVE_UP_SECONDS: Final = 120.0
_STOPPED_SECONDS, _RUNNING_SECONDS = 0.09, 0.03


@dataclass
class Fleet:
    """Replicas, their balancer, and the findings of a scenario."""

    replicas: Sequence[Replica]
    balancer: Balancer
    until: float = 0.0
    """Time of the event loop when the requests end; a repeated fault is not begun after it."""
    faults: int = 0
    out_of_rotation_s: list[float] = field(default_factory=list)
    in_flight: int = 0
    sent_to_faulty: int = 0
    back_s: list[float] = field(default_factory=list)

    async def follow(self, replica: Replica, sent_before: int, since: float) -> None:
        """Wait until the balancer has taken the replica out of rotation, and record that."""
        self.out_of_rotation_s.append(await self._until(replica, up=False, since=since))
        self.sent_to_faulty += self.balancer.seen(replica.name).sent - sent_before

    async def back(self, replica: Replica, since: float) -> None:
        """Wait until the balancer sends the replica requests again, and record that."""
        self.back_s.append(await self._until(replica, up=True, since=since))

    async def _until(self, replica: Replica, *, up: bool, since: float) -> float:
        now = asyncio.get_running_loop().time
        while self.balancer.seen(replica.name).up != up:
            if now() - since > _GIVE_UP_SECONDS:
                state = "in" if up else "out of"
                message = f"{replica.name} was not {state} rotation after {_GIVE_UP_SECONDS:g} s"
                raise BenchError(message)
            await asyncio.sleep(_LOOK_SECONDS)
        return round(now() - since, 3)

    def begin(self, replica: Replica) -> tuple[int, float]:
        """Count a fault. Return how many requests the replica had been sent before, and the
        time."""
        seen = self.balancer.seen(replica.name)
        self.faults += 1
        self.in_flight += seen.in_flight
        return seen.sent, asyncio.get_running_loop().time()


async def rolling_restart(fleet: Fleet) -> None:
    """Restart one replica after the other as Kubernetes does, again and again.

    The preStop hook runs from the start; the balancer learns a second later that the replica is
    ending; SIGTERM follows the hook.
    """
    now = asyncio.get_running_loop().time
    while now() < fleet.until:
        for replica in fleet.replicas:
            _, since = fleet.begin(replica)
            await asyncio.sleep(_PROPAGATION_SECONDS)
            fleet.balancer.set_state(replica.name, "drain")
            await asyncio.sleep(_PRE_STOP_SECONDS - _PROPAGATION_SECONDS)
            await asyncio.to_thread(replica.terminate)
            await asyncio.to_thread(replica.start)
            fleet.balancer.set_state(replica.name, "ready")
            await fleet.back(replica, since)


async def rolling_update(fleet: Fleet) -> None:
    """Give one replica after the other a new file of its model, again and again."""
    now = asyncio.get_running_loop().time
    while now() < fleet.until:
        for replica in fleet.replicas:
            _, since = fleet.begin(replica)
            await asyncio.to_thread(replica.update, fleet.faults)
            await fleet.back(replica, since)
            await asyncio.sleep(1.0)


async def killed(fleet: Fleet) -> None:
    """Kill a replica's processes, and start it again."""
    replica = fleet.replicas[0]
    sent, since = fleet.begin(replica)
    await asyncio.to_thread(replica.kill)
    await fleet.follow(replica, sent, since)
    await asyncio.to_thread(replica.start)
    await fleet.back(replica, since)


async def frozen(fleet: Fleet) -> None:
    """Freeze a replica for some seconds."""
    replica = fleet.replicas[0]
    sent, since = fleet.begin(replica)
    replica.freeze()
    await fleet.follow(replica, sent, since)
    await asyncio.sleep(_FAULT_SECONDS)
    replica.thaw()
    await fleet.back(replica, asyncio.get_running_loop().time())


async def cut_off(fleet: Fleet) -> None:
    """Cut a replica off the network for some seconds."""
    replica = fleet.replicas[0]
    sent, since = fleet.begin(replica)
    replica.host.cut()
    await fleet.follow(replica, sent, since)
    await asyncio.sleep(_FAULT_SECONDS)
    replica.host.join()
    await fleet.back(replica, asyncio.get_running_loop().time())


async def slow(fleet: Fleet) -> None:
    """Let a replica run for only a quarter of the time."""
    replica = fleet.replicas[0]
    sent, since = fleet.begin(replica)
    now = asyncio.get_running_loop().time
    try:
        while now() - since < _FAULT_SECONDS:
            replica.freeze()
            await asyncio.sleep(_STOPPED_SECONDS)
            replica.thaw()
            await asyncio.sleep(_RUNNING_SECONDS)
    finally:
        replica.thaw()
    fleet.sent_to_faulty += fleet.balancer.seen(replica.name).sent - sent


@dataclass(frozen=True)
class Scenario:
    """One thing that is done to the fleet, and what is promised meanwhile."""

    name: str
    title: str
    promise: str
    run: Callable[[Fleet], Coroutine[Any, Any, None]]
    allowed: Callable[[Fleet], int] = lambda _: 0
    """Number of requests that may fail."""
    must_be_out: bool = False
    """Whether the replica must be out of rotation within :data:`OUT_SECONDS`."""
    is_repeated: bool = False
    """Whether it is repeated until the plan's number of requests has been sent."""


_OUT = f"out of rotation within {OUT_SECONDS:g} s; of what it was sent until then, all may fail"
SCENARIOS: Final = {
    one.name: one
    for one in (
        Scenario(
            "restart",
            "Rolling restart, as Kubernetes does it",
            "no request fails",
            rolling_restart,
            is_repeated=True,
        ),
        Scenario(
            "update", "Rolling update of the model", "no request fails", rolling_update,
            is_repeated=True,
        ),
        Scenario(
            "kill", "A replica killed (`kill -9`)", "no request fails: the balancer repeats them",
            killed,
        ),
        Scenario(
            "freeze", "A replica frozen (SIGSTOP)", _OUT, frozen,
            lambda fleet: fleet.in_flight + fleet.sent_to_faulty, must_be_out=True,
        ),
        Scenario(
            "cut", "A replica cut off the network", _OUT, cut_off,
            lambda fleet: fleet.in_flight + fleet.sent_to_faulty, must_be_out=True,
        ),
        Scenario("slow", "A replica with a quarter of its CPU time", "no request fails", slow),
    )
}  # fmt: skip
"""Scenarios by name, in the order in which they run."""
