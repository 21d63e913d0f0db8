"""Tests of a running server's connections over raw sockets, as clients and proxies see them."""

import errno
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.settings import Settings, read_settings
from service.workers.listening import EVERY_ADDRESS, EVERY_IPV4, default_host
from service.workers.server import CIPHERS, KEEP_ALIVE_SECONDS, Launch
from tests.service.cases import PNG
from tests.service.server import (
    Server,
    connections_of,
    port_of,
    read_all,
    refusals,
    wait_for,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")

LAST = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def post(length: int, *headers: str, path: str = "/classify", version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: a", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    limits = {"CIFAR10_HEADER_SECONDS": "2", "CIFAR10_MAX_CONNECTIONS": "8"}
    running = Server(tmp_path_factory.mktemp("wire"), tiny_store, **limits)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(server)), timeout=30)


def statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def test_an_upload_that_requests_http_2_is_answered_in_http_1(server: Server):
    with connect(server) as client:
        client.sendall(post(len(PNG), "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c") + PNG)
        client.sendall(LAST)
        assert statuses(read_all(client)) == [200, 200]


def test_pipelined_requests_are_all_answered(server: Server):
    with connect(server) as client:
        client.sendall((post(len(PNG)) + PNG) * 40 + LAST)
        assert statuses(read_all(client)) == [200] * 41


@pytest.mark.parametrize("path", ["/classify", "/nothing", "/v2/models/none/infer"])
def test_a_refusal_is_not_lost_with_the_unread_body(server: Server, path: str):
    """Sends HTTP/1.0, nginx's default; the connection closes when the answer is complete."""
    size = 12_000_000
    for _ in range(5):
        with connect(server) as client:
            client.sendall(post(size, path=path, version="1.0"))
            client.sendall(b"x" * size)  # all of it is taken, not reset
            head, _, body = read_all(client).partition(b"\r\n\r\n")
            assert head.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 404 "))
            assert b"content-length: %d\r\n" % len(body) in head


def test_a_body_that_goes_on_after_its_refusal_ends_the_connection_in_time(server: Server):
    with connect(server) as client:
        client.sendall(post(99_999_999))
        answer = client.recv(65536)
        assert statuses(answer) == [413]
        while True:
            try:
                client.sendall(b"x" * 100)
            except OSError:
                break


def test_half_closed_clients_get_their_answer(server: Server):
    for _ in range(20):
        with connect(server) as client:
            client.sendall(post(len(PNG)) + PNG)
            client.shutdown(socket.SHUT_WR)
            assert statuses(read_all(client)) == [200]


def test_a_client_that_never_reads_is_disconnected(server: Server):
    wait_for(lambda: connections_of(server).total() == 0, "others have gone")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port_of(server)))
        client.setblocking(False)
        ask, gone = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 100, False
        deadline = time.monotonic() + 60
        while not gone and time.monotonic() < deadline:
            try:
                client.send(ask)
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:
                gone = True
    assert gone
    wait_for(lambda: connections_of(server).total() == 0, "its place is free")


def test_a_client_that_never_reads_gets_a_reset(server: Server):
    """Only a reset tells such a client, and frees the kernel's memory."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port_of(server)))
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 400)
        established = 1  # of Linux's tcp_states.h
        wait_for(
            lambda: client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != established,
            "the connection is reset",
        )


def test_an_idle_connection_makes_room_for_a_new_one(server: Server):
    held = []
    try:
        for _ in range(12):
            client = connect(server)
            held.append(client)
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert statuses(client.recv(65536)) == [200]
    finally:
        for client in held:
            client.close()


def test_refusals_of_the_parser_are_counted(server: Server):
    before = refusals(server, "malformed")
    with connect(server) as client:
        client.sendall(b"no http at all\r\n\r\n")
        answer = read_all(client)
    assert b"content-type: application/problem+json" in answer
    assert refusals(server, "malformed") == before + 1


def test_disconnects_in_a_pipeline_do_not_count_as_server_errors(server: Server):
    for _ in range(5):
        with connect(server) as client:
            client.sendall((post(len(PNG)) + PNG) * 3)
    httpx.get(f"{server.url}/livez")
    assert "Traceback" not in server.log.read_text()


def test_a_long_file_name_is_accepted(server: Server):
    """Sends a name of 255 Chinese characters in both forms that browsers and clients use."""
    name = "图" * 255
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    part = (
        f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"; '
        f"filename*=UTF-8''{encoded}\r\n\r\n"
    ).encode()
    answer = httpx.post(
        f"{server.url}/classify",
        content=part + PNG + b"\r\n--b--\r\n",
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert answer.status_code == 200, answer.text


def test_an_answer_does_not_grow_with_the_id_of_its_request(server: Server):
    image = triton.InferInput("image", [1, 32, 32, 3], "UINT8")
    image.set_data_from_numpy(np.zeros((1, 32, 32, 3), np.uint8))
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.infer("tiny_a", [image], request_id="x" * 1024).get_response()["id"]
        with pytest.raises(InferenceServerException, match="'id' has 1,025 characters"):
            client.infer("tiny_a", [image], request_id="x" * 1025)


@pytest.mark.parametrize(("trusted", "refused"), [("", 3), ("127.0.0.0/8", 0)])
def test_only_a_trusted_proxy_may_name_the_client(
    tmp_path: Path, tiny_store: Path, trusted: str, refused: int
):
    limits = {"CIFAR10_RATE_LIMIT": "0.001", "CIFAR10_TRUSTED_PROXIES": trusted}
    running = Server(tmp_path, tiny_store, **limits)
    try:
        running.wait_until_ready()
        found = [
            httpx.get(f"{running.url}/models", headers={"x-forwarded-for": f"192.0.2.{k}"})
            for k in range(4)
        ]
        assert [one.status_code for one in found].count(429) == refused
    finally:
        running.kill()


def test_an_invalid_proxy_address_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CIFAR10_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    assert read_settings().trusted_proxies == ("10.0.0.0/8", "::1")
    monkeypatch.setenv("CIFAR10_TRUSTED_PROXIES", "proxy.example.org")
    with pytest.raises(Exception, match="CIFAR10_TRUSTED_PROXIES"):
        read_settings()


def test_a_launch_uses_our_defaults_and_keeps_given_options():
    launch = Launch.from_options({"fd": 3, "ssl_ciphers": "TLSv1"}, Settings())
    assert launch.keep_alive_seconds == KEEP_ALIVE_SECONDS == 75
    assert launch.ssl == {"ssl_ciphers": CIPHERS}
    given = {"fd": 3, "timeout_keep_alive": 5, "ssl_ciphers": "ECDHE-RSA-AES256-GCM-SHA384"}
    launch = Launch.from_options(given, Settings())
    assert launch.keep_alive_seconds == 5
    assert launch.ssl["ssl_ciphers"] == given["ssl_ciphers"]


def certificate(folder: Path) -> tuple[Path, Path]:
    """Create a self-signed certificate and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not installed")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command = ["openssl", "req", "-x509", *made, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_tls_accepts_modern_1_2_clients_and_limits_the_handshake(tmp_path: Path, tiny_store: Path):
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM")
    running = Server(
        tmp_path,
        tiny_store,
        "--ssl-certfile",
        str(cert),
        "--ssl-keyfile",
        str(key),
        CIFAR10_HEADER_SECONDS="1",
    )
    try:
        running.wait_until_ready(verify=context)
        with connect(running) as silent:
            assert read_all(silent) == b""  # closed within the socket's own patience
        with context.wrap_socket(connect(running)) as client:
            assert client.version() == "TLSv1.2"
            client.sendall(post(12_000_000, path="/nothing"))
            client.sendall(b"x" * 12_000_000)
            assert statuses(read_all(client)) == [404]
    finally:
        running.kill()


def test_a_plain_start_listens_for_ipv4_and_ipv6(tmp_path: Path, tiny_store: Path):
    if default_host() != EVERY_ADDRESS:
        pytest.skip("this machine has no IPv6, or keeps the two apart")
    running = Server(tmp_path, tiny_store, host=None)
    try:
        running.wait_until_ready()
        for host in ("127.0.0.1", "[::1]", "localhost"):
            answer = httpx.post(f"http://{host}:{port_of(running)}/classify", content=PNG)
            assert answer.status_code == 200
    finally:
        running.kill()


@pytest.mark.parametrize("fault", ["no IPv6", "apart", "cannot bind"])
def test_a_machine_without_ipv6_gets_ipv4(monkeypatch: pytest.MonkeyPatch, fault: str):
    class Socket(socket.socket):
        def __init__(self, *arguments: object) -> None:
            if fault == "no IPv6":
                raise OSError(errno.EAFNOSUPPORT, "not supported")
            super().__init__(*arguments)

        def getsockopt(self, *arguments: object) -> int:
            return int(fault == "apart")

        def bind(self, _: object) -> None:
            raise OSError(errno.EADDRNOTAVAIL, "not available")

    monkeypatch.setattr("service.workers.listening.socket.socket", Socket)
    assert default_host() == EVERY_IPV4
