"""The servers compared: ours, the peers, one that is only started, and one that does nothing."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.peers.questions import Base64Image, Form, FormImage, RawImage, V2Base64Image, V2Pixels
from bench.rows.kinds.service import PeerRole
from bench.serving.process import SERVE

FOLDER: Final = Path(__file__).parent
OWN: Final = "its own"
OURS: Final = "ours"
NONE: Final = "none"


@dataclass(frozen=True)
class Peer:
    """One server in one configuration."""

    name: str
    """One word, for the command line."""
    title: str
    """Title in the report, without the version."""
    role: PeerRole
    command: tuple[str, ...]
    """``{bin}`` is its environment's folder of programs; ``{port}``, ``{port_2}`` and ``{port_3}``
    are free ports. It runs in its own folder."""
    route: str
    form: Form
    decoder: str
    folder: str | None = None
    """Folder under ``bench/peers`` with its server and requirements; None: this project's
    environment."""
    package: str | None = None
    """Package whose version is shown."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More environment variables."""


def _both_decoders(
    name: str,
    title: str,
    command: tuple[str, ...],
    route: str,
    form: Form,
    own_form: Form | None = None,
    *,
    package: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> tuple[Peer, Peer]:
    def one(suffix: str, decoder: str, asked: Form) -> Peer:
        return Peer(
            f"{name}{suffix}",
            title,
            "peer",
            command,
            route,
            asked,
            decoder,
            folder=name,
            package=package or name,
            settings=settings or {},
        )

    return one("", OWN, own_form or form), one("_our_decoder", OURS, form)


_BENTOML: Final = ("{bin}/bentoml", "serve", "--host", "127.0.0.1", "--port", "{port}")

OUR_NAME: Final = "ours"

CATALOGUE: Final[tuple[Peer, ...]] = (
    Peer(
        OUR_NAME,
        "This service",
        "ours",
        SERVE,
        "/classify?top_k=10",
        RawImage(),
        OURS,
    ),
    *_both_decoders(
        "bentoml", "BentoML as documented", (*_BENTOML, "server:Cifar10"), "/classify", FormImage()
    ),
    *_both_decoders(
        "fastapi",
        "FastAPI + uvicorn",
        ("{bin}/fastapi", "run", "server.py", "--host", "127.0.0.1", "--port", "{port}"),
        "/classify",
        FormImage(),
    ),
    *_both_decoders(
        "litserve",
        "LitServe",
        ("{bin}/python", "server.py", "{port}"),
        "/predict",
        Base64Image(),
    ),
    Peer(
        "litserve_batching",
        "LitServe, batching",
        "peer",
        ("{bin}/python", "server.py", "{port}"),
        "/predict",
        Base64Image(),
        OURS,
        folder="litserve",
        package="litserve",
        settings={"PEER_BATCH": "32"},
    ),
    *_both_decoders(
        "mlserver",
        "MLServer",
        ("{bin}/mlserver", "start", "."),
        "/v2/models/cifar10/infer",
        V2Base64Image(),
        settings={
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port_2}",
            "MLSERVER_METRICS_PORT": "{port_3}",
        },
    ),
    *_both_decoders("ray", "Ray Serve", ("{bin}/python", "server.py", "{port}"), "/", RawImage()),
    Peer(
        "triton",
        "Triton (PyTriton)",
        "peer",
        ("{bin}/python", "server.py", "{port}", "{port_2}", "{port_3}"),
        "/v2/models/cifar10/infer",
        V2Pixels(),
        NONE,
        folder="triton",
        package="nvidia-pytriton",
    ),
    Peer(
        "ours_v2",
        "This service, v2",
        "ours",
        SERVE,
        "/v2/models/{model}/infer",
        V2Pixels(),
        NONE,
    ),
    Peer(
        "bentoml_hello",
        "BentoML's hello world",
        "start only",
        (*_BENTOML, "server:Hello"),
        "/hello",
        RawImage(),
        NONE,
        folder="bentoml_hello",
        package="bentoml",
    ),
    Peer(
        "ceiling",
        "A server that does nothing",
        "ceiling",
        (sys.executable, "-m", "bench.serving.null_server", "{port}"),
        "/classify",
        RawImage(),
        NONE,
    ),
)
"""All servers, in the order of a round."""
