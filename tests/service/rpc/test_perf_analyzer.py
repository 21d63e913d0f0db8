"""NVIDIA's perf_analyzer, unmodified, against a real server.

It needs glibc 2.38. Where it is not on the path, ``PERF_ANALYZER`` may name the command that runs
it.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.server import Server, free_port, port_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")

COMMAND = shlex.split(os.environ.get("PERF_ANALYZER", "perf_analyzer"))
QUICK = "--concurrency-range 2 --measurement-mode count_windows --measurement-request-count 20"
QUICK += " --max-trials 3 --stability-percentage 999"


@pytest.fixture(scope="module")
def servers_ports(
    tmp_path_factory: pytest.TempPathFactory, tiny_store: Path
) -> Iterator[dict[str, int]]:
    if shutil.which(COMMAND[0]) is None:
        pytest.skip("perf_analyzer is not installed: pip install perf-analyzer")
    if subprocess.run([*COMMAND, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("perf_analyzer does not run here: it needs glibc 2.38")
    grpc_port = free_port()
    folder = tmp_path_factory.mktemp("perf_analyzer")
    running = Server(folder, tiny_store, CIFAR10_GRPC_PORT=str(grpc_port))
    try:
        running.wait_until_ready()
        yield {"http": port_of(running), "grpc": grpc_port}
    finally:
        running.kill()


@pytest.mark.parametrize("how", ["", "-a"])
@pytest.mark.parametrize("batch", ["1", "8"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_perf_analyzer(
    servers_ports: dict[str, int], protocol: str, batch: str, how: str, tmp_path: Path
):
    url = f"127.0.0.1:{servers_ports[protocol]}"
    command = [*COMMAND, "-m", "tiny_a", "-i", protocol, "-u", url, "-b", batch, *how.split()]
    done = subprocess.run(
        [*command, *QUICK.split()], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput:" in done.stdout
