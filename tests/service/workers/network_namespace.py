"""Run ``bentoml serve`` in its own network and mount namespace. Print as JSON every name that it
looks up and every file that it leaves in its user's home.

Run as root through ``unshare --net --mount``; the only argument is a folder for its files.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

SIOCSIFFLAGS = 0x8914
IFF_UP = 1
PORT = 3000
QUESTION_START = 12


def bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


def be_the_name_server(folder: Path, names: list[str]) -> None:
    """Record every query and answer that the name does not exist."""
    configuration = folder / "resolv.conf"
    configuration.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    real = os.path.realpath("/etc/resolv.conf")
    subprocess.run(["mount", "--bind", str(configuration), real], check=True)
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 53))

    def answer() -> None:
        while True:
            query, client = listener.recvfrom(4096)
            labels, place = [], QUESTION_START
            while length := query[place]:
                labels.append(query[place + 1 : place + 1 + length].decode())
                place += 1 + length
            names.append(".".join(labels))
            listener.sendto(query[:2] + b"\x81\x83" + query[4:], client)

    threading.Thread(target=answer, daemon=True).start()


def wait_until_ready(server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit("the server did not become ready")


def main() -> None:
    folder = Path(sys.argv[1])
    names: list[str] = []
    bring_up_loopback()
    be_the_name_server(folder, names)
    home = folder / "home"
    home.mkdir()
    quiet = ("BENTOML_DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    environment |= {"HOME": str(home), "BENTOML_HOME": str(folder / "bentoml")}
    command = [sys.executable, "-m", "bentoml", "serve", "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(PORT)], env=environment, stdout=log, stderr=log
        )
    wait_until_ready(server)
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    own = {socket.gethostname().lower()}  # Circus asks for its machine's own name
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    looked_up = sorted({name for name in names if name.lower().split(".")[0] not in own})
    sys.stdout.write(json.dumps({"looked_up": looked_up, "left": left}))


if __name__ == "__main__":
    main()
