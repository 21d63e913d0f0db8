"""Ray Serve as its documentation shows it: a deployment that receives the HTTP request.

docs.ray.io/en/latest/serve/tutorials/serve-ml-models.html ("Serve a PyTorch model": the image is
the body) and .../serve/http-guide.html (``http_options``). ``max_ongoing_requests`` is set
as .../serve/advanced-guides/performance.html advises: with the default of 5, further requests wait
in the router in steps of up to half a second, and 32 callers got 12 to 16 responses a second. The
dashboard is off, because it would share the one core.

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
    """Deployment of one model in one replica."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Classify an image."""
        return self.classifier.classify(decode(await request.body()))


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Cifar10.bind(), blocking=True)
