"""Ray Serve as its documentation has it: a deployment that is called with the request.

docs.ray.io/en/latest/serve/tutorials/serve-ml-models.html ("Serve a PyTorch model": the image is
the body) and .../serve/http-guide.html (``http_options``). ``max_ongoing_requests`` as
.../serve/advanced-guides/performance.html advises: with its default of 5, requests beyond those
wait in the router in steps of up to half a second, and 32 callers got 12 to 16 answers a second.
Without the dashboard, which would share the one core.

    python server.py PORT
"""

import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from bench.peers.classifier import Classifier, decode


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class Cifar10:
    """One model in one replica."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    async def __call__(self, request: Request) -> dict[str, Any]:
        """An image's class."""
        return self.classifier.classify(decode(await request.body()))


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Cifar10.bind(), blocking=True)
