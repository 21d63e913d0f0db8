"""Triton through PyTriton as its documentation shows it: raw pixels in the v2 binary extension.

triton-inference-server.github.io/pytriton/latest/quick_start/ (``bind``, ``@batch``,
``ModelConfig(max_batch_size=128)``, the dynamic batcher at its default). The Triton server is
NVIDIA's own binary; the model runs in its Python backend, on the CPU. The server decodes nothing.

    python server.py HTTP_PORT GRPC_PORT METRICS_PORT
"""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.peers.classifier import Classifier

classifier = Classifier()


@batch
def infer(image: np.ndarray) -> dict[str, np.ndarray]:
    """Compute probabilities from pixels."""
    return {"probabilities": classifier.predict(image)}


if __name__ == "__main__":
    http_port, grpc_port, metrics_port = (int(port) for port in sys.argv[1:])
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="cifar10",
            infer_func=infer,
            inputs=[Tensor(name="image", dtype=np.uint8, shape=(32, 32, 3))],
            outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(10,))],
            config=ModelConfig(max_batch_size=128),
        )
        triton.serve()
