"""Two Ray nodes of one core each on this machine, and the death of one of them."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from bench.fleet.network import DrillSkippedError, private_network

ray = pytest.importorskip("ray", reason="needs the extra `ray`")
os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # a busy machine starts slowly


class Nodes:
    """A cluster whose head does no work."""

    def __init__(self, count: int = 2) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 200 << 20}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [
            self._cluster.add_node(num_cpus=1, object_store_memory=200 << 20) for _ in range(count)
        ]
        self._cluster.wait_for_nodes()
        self.address: str = self._cluster.address

    def kill_one(self) -> None:
        """Kill a node without a warning, if there are two."""
        if len(self._nodes) > 1:
            self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def end(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


@contextlib.contextmanager
def nodes(count: int = 2) -> Iterator[Nodes]:
    """Start Ray nodes, in a network of their own where that is permitted.

    Some hosts do not let a program reach its own address.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(DrillSkippedError):
            stack.enter_context(private_network())
        for attempt in range(3):
            try:
                found = Nodes(count)
                break
            except Exception as error:  # Ray's own type: a node has 30 s to start
                if "timed out during startup" not in str(error) or attempt == 2:
                    raise
        stack.callback(found.end)
        yield found
