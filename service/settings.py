"""The server's settings, read from the environment once.

| variable                    | is                                            | otherwise        |
|-----------------------------|-----------------------------------------------|------------------|
| `CIFAR10_DEVICE`            | `auto`, `cpu` or `cuda`                       | `auto`           |
| `CIFAR10_DEFAULT_MODEL`     | answers without `?model=`; on CUDA: `compact` | `compact_int8`   |
| `CIFAR10_LOAD`              | the models to load, separated by commas       | all in the store |
| `CIFAR10_ALIASES`           | other names of theirs: `best=compact,...`     | none             |
| `CIFAR10_WORKERS`           | worker processes                              | one a core       |
| `CIFAR10_THREADS`           | ONNX Runtime threads in each worker           | 1                |
| `CIFAR10_CUDA_MEMORY_BYTES` | of each model and batch size on CUDA, at most | 2 GiB            |
| `CIFAR10_MAX_BODY_BYTES`    | the largest body accepted                     | 10 MiB           |
| `CIFAR10_MAX_PIXELS`        | the most pixels of a JPEG                     | 64,000,000       |
| `CIFAR10_MAX_PIXELS_WHOLE`  | ... of a PNG, WebP or progressive JPEG        | 24,000,000       |
| `CIFAR10_DEADLINE_SECONDS`  | from a request's headers to its answer        | 10               |
| `CIFAR10_HEADER_SECONDS`    | for a request's head, and steps of an answer  | 10               |
| `CIFAR10_DRAIN_SECONDS`     | for accepted work to end after SIGTERM        | 30               |
| `CIFAR10_QUEUE_BOUND`       | images of one model waiting or running        | 1,024            |
| `CIFAR10_MAX_BATCH`         | images in one run of a model, at most         | 32               |
| `CIFAR10_MAX_IMAGES`        | images in one request, at most                | 512              |
| `CIFAR10_MAX_CONNECTIONS`   | open connections of each worker, at most      | 1,000            |
| `CIFAR10_TOKEN`             | what clients must send as a bearer token      | none asked for   |
| `CIFAR10_ADMIN_TOKEN`       | what allows `POST /models/{name}/reload`      | nobody may       |
| `CIFAR10_RATE_LIMIT`        | requests per second from one address          | no limit         |
| `CIFAR10_TRUSTED_PROXIES`   | whose X-Forwarded-For is believed: `10.0.0.7` | nobody's         |
| `CIFAR10_CORS_ORIGINS`      | whose pages may ask: `https://a.org,...`, `*` | only our own     |
| `CIFAR10_ACCESS_LOG`        | the share of requests that are logged, 0 to 1 | 0                |

Cores are those that this process may use (:mod:`cifar10.machine`); where the models run on CUDA
the default is one worker, which keeps one GPU busy, for each has its own copy of them there.

(Where the models are, `CIFAR10_MODELS`, and the page's efficiency table, `CIFAR10_RESULTS`, is the
kernel's: see `cifar10/environment.py`.)
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cifar10.errors import SettingsError
from cifar10.images import DecodeLimits
from cifar10.machine import usable_cores
from cifar10.predictor import Device, likely_device
from cifar10.suggestions import did_you_mean

PREFIX: Final = "CIFAR10_"

MOST_WORKERS: Final = 256

_KERNEL_VARIABLES: Final = {
    "CIFAR10_DATA",
    "CIFAR10_MODELS",
    "CIFAR10_RESULTS",
    "CIFAR10_WEIGHTS",
    "CIFAR10_CACHE",
}

_KUBERNETES_VARIABLES: Final = (
    (re.compile(r".+_SERVICE_HOST"), re.compile(r"[0-9a-fA-F:.]+")),
    (re.compile(r".+_SERVICE_PORT(_[A-Z0-9_]+)?"), re.compile(r"[0-9]+")),
    (re.compile(r".+_PORT(_[0-9]+_(TCP|UDP|SCTP))?"), re.compile(r"(tcp|udp|sctp)://.+")),
    (re.compile(r".+_PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO"), re.compile(r"tcp|udp|sctp")),
    (re.compile(r".+_PORT_[0-9]+_(TCP|UDP|SCTP)_PORT"), re.compile(r"[0-9]+")),
    (re.compile(r".+_PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR"), re.compile(r"[0-9a-fA-F:.]+")),
)
"""(name, value) of what Kubernetes and ``docker --link`` set in every container for each Service of
the namespace, such as ``CIFAR10_API_PORT=tcp://10.0.0.7:3000`` for one named ``cifar10-api``.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

_ALIAS: Final = re.compile(r"[a-z0-9][a-z0-9_]*")
_ORIGIN: Final = re.compile(r"https?://[^/?#\s]+")


def default_workers(device: Device) -> int:
    """Return the number of worker processes that fit this machine."""
    return 1 if likely_device(device) == "cuda" else min(usable_cores(), MOST_WORKERS)


class Settings(BaseSettings):
    """All settings of the server, frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    device: Device = "auto"
    default_model: str | None = None
    """None: the store's only model, or :data:`cifar10.released.RELEASED` for where it runs."""
    load: Annotated[tuple[str, ...], NoDecode] = ()
    """Empty: all in the store."""
    workers: int = Field(
        default_factory=lambda earlier: default_workers(earlier.get("device", "auto")),
        ge=1,
        le=MOST_WORKERS,
    )
    threads: int = Field(default=1, ge=1, le=256)
    cuda_memory_bytes: int = Field(default=2 << 30, ge=64 << 20)
    """Bound of ONNX Runtime's arena; each model has one for each of its batch sizes."""
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    max_pixels: int = Field(default=64_000_000, ge=1024)
    max_pixels_whole: int = Field(default=24_000_000, ge=1024)
    deadline_seconds: float = Field(default=10.0, gt=0, le=3600)
    queue_bound: int = Field(default=1024, ge=1)
    max_batch: int = Field(default=32, ge=1, le=1024)
    max_images: int = Field(default=512, ge=1)
    header_seconds: float = Field(default=10.0, ge=1, le=3600)
    drain_seconds: float = Field(default=30.0, ge=0, le=3600)
    max_connections: int = Field(default=1000, ge=1)
    aliases: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)
    """Models by alias."""
    token: SecretStr | None = Field(default=None, min_length=1)
    admin_token: SecretStr | None = Field(default=None, min_length=1)
    rate_limit: float = Field(default=0.0, ge=0, le=1e6)
    """Requests per second and client address; 0: no limit."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses and networks whose ``X-Forwarded-For`` names the client."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    access_log: float = Field(default=0.0, ge=0, le=1)

    @field_validator("load", "cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @field_validator("aliases", mode="before")
    @classmethod
    def _split_pairs(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        aliases = {}
        for pair in filter(None, (part.strip() for part in value.split(","))):
            alias, equals, model = (part.strip() for part in pair.partition("="))
            if not equals or not _ALIAS.fullmatch(alias) or alias in aliases:
                message = f"expected alias=model,... with each alias once; got {pair!r}"
                raise ValueError(message)
            aliases[alias] = model
        return aliases

    @field_validator("token", "admin_token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse a token that no client could send: HTTP takes the spaces around a header's value
        away, and allows no control characters in it."""
        text = value.get_secret_value() if value is not None else ""
        if text != text.strip() or any(
            ord(character) < 32 or ord(character) == 127 for character in text
        ):
            message = (
                "expected a token without spaces or line ends around it and without control "
                "characters, which no client can send; `printf %s TOKEN` writes no line end"
            )
            raise ValueError(message)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                message = f"expected origins such as https://example.org, or *; got {origin!r}"
                raise ValueError(message)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                message = f"expected addresses or networks such as 10.0.0.0/8; got {network!r}"
                raise ValueError(message) from None
        return value

    @property
    def decode_limits(self) -> DecodeLimits:
        """Limits that are checked before an image is decoded."""
        return DecodeLimits(self.max_body_bytes, self.max_pixels, self.max_pixels_whole)


def _is_of_a_service(name: str, value: str) -> bool:
    """Whether Kubernetes set the variable, by the form of its name and of its value."""
    return any(
        names.fullmatch(name) and values.fullmatch(value) for names, values in _KUBERNETES_VARIABLES
    )


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this process's environment.

    Raises:
        SettingsError: a value that is not allowed, or an unknown `CIFAR10_` variable, which would
            otherwise be a setting that silently does nothing.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in known | _KERNEL_VARIABLES:
            continue
        if not _is_of_a_service(name, value):
            near = did_you_mean(name, known | _KERNEL_VARIABLES)
            hint = near or f" There are: {', '.join(sorted(known))}."
            message = f"the environment sets {name}, which is no setting of this server.{hint}"
            raise SettingsError(message)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        given = "" if name.endswith("TOKEN") else f"={first['input']!r}"
        message = f"{name}{given} is not accepted: {first['msg']}"
        raise SettingsError(message) from error
