"""A small real server with the service's contract, for tests of what drives it.

    python fake_server.py PORT [--die-after N] [--wrong-every N] [--status N] [--provider NAME]

It answers with the first model of ``CIFAR10_LOAD`` in the store ``CIFAR10_MODELS``. After N posts
it can die as ``kill -9`` would; every Nth answer can be wrong; every answer can be another status.
"""

import argparse
import itertools
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cifar10.environment import models_dir
from cifar10.images import decode_image
from cifar10.labels import LABELS
from cifar10.predictor import CPU_PROVIDER, Predictor, PredictorOptions
from cifar10.store import ModelStore


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--die-after", type=int, default=0)
    parser.add_argument("--wrong-every", type=int, default=0)
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--provider", default=CPU_PROVIDER)
    options = parser.parse_args()
    name = os.environ.get("CIFAR10_LOAD", "").split(",")[0] or "tiny_a"
    stored = ModelStore(Path(models_dir())).load(name)
    predictor = Predictor(stored.onnx, PredictorOptions(device="cpu"))
    numbers = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200, {"models": [{"name": name, "provider": options.provider}]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            number = next(numbers)
            if options.die_after and number > options.die_after:
                sys.stderr.write("fake server: planned death\n")
                sys.stderr.flush()
                os._exit(9)
            (probabilities,) = predictor.predict(decode_image(body)[None])
            class_id = int(probabilities.argmax())
            if options.wrong_every and number % options.wrong_every == 0:
                class_id = (class_id + 1) % 10
            self.answer(
                options.status,
                {
                    "label": LABELS[class_id],
                    "class_id": class_id,
                    "confidence": float(probabilities[class_id]),
                    "top_k": [
                        {"class_id": k, "probability": float(probabilities[k])} for k in range(10)
                    ],
                    "model": name,
                    "digest": stored.card.sha256,
                    "device": "cpu",
                },
            )

        def answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            head = (
                f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            self.wfile.write(head.encode() + body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    Server(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
