"""Tests with widely used clients and proxies in their default configuration: curl, Java, Node,
nginx.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.cases import PNG
from tests.service.server import (
    START_SECONDS,
    Server,
    port_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere BentoML's own workers")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_store: Path) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("clients"), tiny_store, host=None)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    return path


def program(name: str) -> str:
    """Return the path of a program."""
    # nginx is not on the path of those who are not root.
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"the program {name} is not installed")
    return found


def run(*command: str) -> str:
    """Run a command, which must succeed, and return its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl(*arguments: str) -> str:
    """Run curl and return the status and its exit code."""
    shown = "%{http_code} %{http_version} %{errormsg}"
    return run(program("curl"), "-sS", "-o", os.devnull, "-w", shown, *arguments).strip()


@pytest.mark.parametrize("how", [("-F", "image=@{}"), ("--data-binary", "@{}")])
def test_curl_that_prefers_http_2(server: Server, image: Path, how: tuple[str, str]):
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{port_of(server)}/classify"
        assert curl("--http2", how[0], how[1].format(image), url) == "200 1.1"


def test_curl_that_waits_for_100_continue(server: Server, tmp_path: Path):
    large = tmp_path / "large"
    large.write_bytes(b"\0" * 12_000_000)
    url = f"{server.url}/classify"
    assert curl("-H", "Expect: 100-continue", "--data-binary", f"@{large}", url) == "413 1.1"


JAVA = """
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;

public class Ask {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int k = 0; k < 3; k++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .POST(BodyPublishers.ofFile(Path.of(arguments[1]))).build();
            HttpResponse<String> answer = client.send(request, BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.version());
        }
    }
}
"""


def test_java_s_client(server: Server, image: Path, tmp_path: Path):
    (tmp_path / "Ask.java").write_text(JAVA)
    url = f"http://localhost:{port_of(server)}/classify"
    printed = run(program("java"), str(tmp_path / "Ask.java"), url, str(image))
    assert printed.splitlines() == ["200 HTTP_1_1"] * 3


NODE = """
const [url, path] = process.argv.slice(2);
const image = require("fs").readFileSync(path);
const ask = (host) => new Promise((resolve, reject) => {
  const asked = require("http").request(host + "/classify", {method: "POST"}, (answer) => {
    answer.resume().on("end", () => resolve(answer.statusCode));
  });
  asked.on("error", reject).end(image);
});
(async () => {
  console.log((await fetch(url + "/classify", {method: "POST", body: image})).status);
  console.log(await ask(url));
  console.log(await ask(url.replace("localhost", "[::1]")));
})();
"""


def test_node_s_clients(server: Server, image: Path, tmp_path: Path):
    (tmp_path / "ask.js").write_text(NODE)
    url = f"http://localhost:{port_of(server)}"
    printed = run(program("node"), str(tmp_path / "ask.js"), url, str(image))
    assert printed.split() == ["200"] * 3


NGINX = """
{user}
daemon off;
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
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    upstream kept {{ server 127.0.0.1:{server}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{server}; }}
        location /streamed/ {{
            client_max_body_size 0;
            proxy_request_buffering off;
            proxy_http_version 1.1;
            proxy_pass http://127.0.0.1:{server}/;
        }}
        location /websockets/ {{
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_pass http://127.0.0.1:{server}/;
        }}
        location /kept/ {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://kept/;
        }}
    }}
}}
"""


@pytest.fixture
def nginx(server: Server, tmp_path: Path) -> Iterator[str]:
    """Yield the address of an nginx in front of the server, with its defaults and three common
    configurations."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = "" if os.geteuid() else "user root;"  # its own could not write in the folder
    text = NGINX.format(user=user, folder=tmp_path, port=port, server=port_of(server))
    (tmp_path / "nginx.conf").write_text(text)
    command = [program("nginx"), "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
            while True:
                try:
                    httpx.get(f"{url}/livez")
                    break
                except httpx.TransportError:
                    assert time.monotonic() < deadline
                    assert process.poll() is None, (tmp_path / "error.log").read_text()
            yield url
        finally:
            process.terminate()


@pytest.mark.parametrize("way", ["", "/streamed", "/websockets", "/kept"])
def test_nginx_as_a_reverse_proxy(nginx: str, way: str):
    with httpx.Client(timeout=60) as client:
        for _ in range(10):
            answer = client.post(f"{nginx}{way}/classify", files={"image": PNG})
            assert answer.status_code == 200, answer.text
            # Refused with its body unread, and nginx closes a connection whose body it has not read
            # after it has announced to keep it: so the client must not use it again.
            refused = client.post(
                f"{nginx}{way}/nothing", content=b"x" * 900_000, headers={"Connection": "close"}
            )
            assert refused.status_code == 404, refused.text
            assert refused.headers["content-type"] == "application/problem+json"


def test_nginx_that_streams_uploads_passes_refusals_on(nginx: str):
    with httpx.Client(timeout=60) as client:
        for _ in range(10):
            answer = client.post(f"{nginx}/streamed/classify", content=b"x" * 30_000_000)
            assert answer.status_code == 413
            assert answer.headers["content-type"] == "application/problem+json"


def test_curl_behind_nginx_for_websockets(nginx: str, image: Path):
    url = f"{nginx}/websockets/classify"
    for _ in range(3):
        assert curl("--http2", "-F", f"image=@{image}", url) == "200 1.1"
