"""Tests of gRPC through the proxies whose settings docs/proxies.md has."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from cifar10.environment import PROJECT_ROOT
from service.rpc.messages import SERVICE, message_class
from tests.service.cases import PNG
from tests.service.rpc.conftest import infer
from tests.service.server import START_SECONDS, Server, free_port, port_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")

PAGE = (PROJECT_ROOT / "docs" / "proxies.md").read_text()
NGINX = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {page}
}}
"""


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, tiny_store: Path, grpc_port: int
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("proxies")
    running = Server(folder, tiny_store, CIFAR10_GRPC_PORT=str(grpc_port))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


def settings_of(language: str, ports: dict[str, int]) -> str:
    """Return the page's settings of a proxy, with this test's ports."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    text = found[1].replace("listen ", "listen 127.0.0.1:").replace("bind :", "bind 127.0.0.1:")
    for old, new in ports.items():
        text = re.sub(rf":{old}\b", f":{new}", text)
    return text


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_the_documented_settings_serve_both(
    server: Server, grpc_port: int, tmp_path: Path, name: str
):
    program = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip(f"the program {name} is not installed")
    ports = {"80": free_port(), "81": free_port(), "3000": port_of(server), "3001": grpc_port}
    text = settings_of(name, ports)
    if name == "nginx":
        user = "" if os.geteuid() else "user root;"  # its own could not write in the folder
        text = NGINX.format(folder=tmp_path, page=text, user=user)
    path = tmp_path / "settings"
    path.write_text(text)
    command = [program, *(("-p", str(tmp_path), "-c") if name == "nginx" else ("-db", "-f"))]
    with subprocess.Popen([*command, str(path)], stderr=subprocess.DEVNULL) as process:
        try:
            ask_until_answered(f"http://127.0.0.1:{ports['80']}", process)
            with grpc.insecure_channel(f"127.0.0.1:{ports['81']}") as channel:
                call = channel.unary_unary(
                    f"/{SERVICE}/ModelInfer",
                    response_deserializer=message_class("ModelInferResponse").FromString,
                )
                answer = call(infer().SerializeToString(), timeout=60, wait_for_ready=True)
                assert list(answer.outputs[0].shape) == [3, 10]
                with pytest.raises(grpc.RpcError) as refused:
                    call(infer(model="none").SerializeToString(), timeout=60)
                assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        finally:
            process.terminate()


def ask_until_answered(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None
        try:
            if httpx.post(f"{url}/classify", files={"file": PNG}).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
