"""The server's settings, read once from the environment.

:class:`Settings` describes each setting. :mod:`service.settings_table` writes the documentation's
table of settings.

Cores are those that this process may use (:mod:`cifar10.machine`). On CUDA the default is one
worker: one keeps a GPU busy, and each worker holds its own copy of the models there.

The kernel reads `CIFAR10_MODELS` (the model store) and `CIFAR10_RESULTS` (the page's efficiency
table): see `cifar10/environment.py`.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cifar10.environment import Engine
from cifar10.errors import SettingsError
from cifar10.images import DecodeLimits
from cifar10.machine import usable_cores
from cifar10.predictor import Device, likely_device
from cifar10.suggestions import did_you_mean

PREFIX: Final = "CIFAR10_"

MOST_WORKERS: Final = 256

SHOWN_DEFAULT: Final = "shown_default"
"""Key of a field's ``json_schema_extra``: its default in words."""

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
"""(name, value) patterns of the variables that Kubernetes and ``docker --link`` set in every
container for each Service of the namespace, such as ``CIFAR10_API_PORT=tcp://10.0.0.7:3000`` for a
Service named ``cifar10-api``.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

_ALIAS: Final = re.compile(r"[a-z0-9][a-z0-9_]*")
_ORIGIN: Final = re.compile(r"https?://[^/?#\s]+")


def default_workers(device: Device, engine: Engine) -> int:
    """Return the default number of worker processes on this machine."""
    return 1 if likely_device(device, engine) == "cuda" else min(usable_cores(), MOST_WORKERS)


def _field(description: str, shown: str | None = None, **options: Any) -> Any:
    """Return the field of one setting.

    Args:
        description: its description in the documentation.
        shown: its default in the documentation; None: the default itself.
        options: options of pydantic's field.
    """
    extra: dict[str, Any] = {} if shown is None else {SHOWN_DEFAULT: shown}
    return Field(description=description, json_schema_extra=extra, **options)


class Settings(BaseSettings):
    """All settings of the server, frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    device: Device = _field("`auto`, `cpu` or `cuda`", shown="`auto`", default="auto")
    engine: Engine = _field(
        "`onnxruntime` or `openvino` (on the CPU)", shown="`onnxruntime`", default="onnxruntime"
    )
    default_model: str | None = _field(
        "model without `?model=`", shown="`auto`, else `compact_int8`", default=None
    )
    """Name of the default model; None: the store's only model, else ``auto`` if there is one, else
    the device's first model in :data:`cifar10.released.RELEASED`."""
    load: Annotated[tuple[str, ...], NoDecode] = _field(
        "models to load, separated by commas", shown="all in the store", default=()
    )
    aliases: Annotated[dict[str, str], NoDecode] = _field(
        "aliases of models: `best=compact,...`", shown="none", default_factory=dict
    )
    """Alias → model name."""
    workers: int = _field(
        "worker processes",
        shown="one per core",
        default_factory=lambda earlier: default_workers(
            earlier.get("device", "auto"), earlier.get("engine", "onnxruntime")
        ),
        ge=1,
        le=MOST_WORKERS,
    )
    threads: int = _field("threads of each worker that run a model", default=1, ge=1, le=256)
    cuda_memory_bytes: int = _field(
        "CUDA memory limit per model and batch size", default=2 << 30, ge=64 << 20
    )
    """Size limit of one ONNX Runtime memory arena; each model has an arena per batch size."""
    grpc_port: int = _field("port for gRPC; 0: none", default=3001, ge=0, le=65535)
    max_body_bytes: int = _field("largest request body", default=10 * 1024 * 1024, ge=1024)
    max_pixels: int = _field("most pixels of a JPEG", default=64_000_000, ge=1024)
    max_pixels_whole: int = _field(
        "... of a PNG, WebP, progressive JPEG or JPEG in several scans",
        default=24_000_000,
        ge=1024,
    )
    deadline_seconds: float = _field(
        "from a request's headers to its answer", default=10.0, gt=0, le=3600
    )
    header_seconds: float = _field(
        "for a request's head, and steps of an answer", default=10.0, ge=1, le=3600
    )
    drain_seconds: float = _field(
        "time for accepted work to end after SIGTERM", default=30.0, ge=0, le=3600
    )
    queue_bound: int = _field(
        "most images of one model waiting or running; fewer above 181 × 181", default=1024, ge=1
    )
    max_batch: int = _field(
        "most images in one run of a model; on a CPU fewer above 112 × 112",
        default=32,
        ge=1,
        le=1024,
    )
    max_images: int = _field("most images in one request", default=512, ge=1)
    max_connections: int = _field("most open connections of each worker", default=1000, ge=1)
    token: SecretStr | None = _field(
        "bearer token that clients must send", shown="none required", default=None, min_length=1
    )
    admin_token: SecretStr | None = _field(
        "token for `POST /models/{name}/reload`",
        shown="reload disabled",
        default=None,
        min_length=1,
    )
    rate_limit: float = _field(
        "requests per second from one address", shown="no limit", default=0.0, ge=0, le=1e6
    )
    """Requests per second from each client address; 0: no limit."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = _field(
        "proxies whose X-Forwarded-For is trusted: `10.0.0.7`", shown="none", default=()
    )
    """Addresses and networks whose ``X-Forwarded-For`` is trusted to name the client."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = _field(
        "allowed origins: `https://a.org,...` or `*`", shown="only our own", default=()
    )
    access_log: float = _field("share of requests that are logged, 0 to 1", default=0.0, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _without_services(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Ignore a variable of Kubernetes that has a setting's name, such as one ending in
        ``_PORT``."""
        return {
            name: value
            for name, value in values.items()
            if not _is_of_a_service(PREFIX + name.upper(), str(value))
        }

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

    @field_validator("engine")
    @classmethod
    def _runs_there(cls, value: Engine, info: ValidationInfo) -> Engine:
        if value == "openvino" and info.data.get("device") == "cuda":
            message = "OpenVINO runs models on the CPU; unset CIFAR10_DEVICE or CIFAR10_ENGINE"
            raise ValueError(message)
        return value

    @field_validator("token", "admin_token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse a token that no client could send: HTTP strips spaces around a header's value and
        allows no control characters in it."""
        text = value.get_secret_value() if value is not None else ""
        if text != text.strip() or any(
            ord(character) < 32 or ord(character) == 127 for character in text
        ):
            message = (
                "expected a token without surrounding spaces or line ends and without control "
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
        """Limits checked before an image is decoded."""
        return DecodeLimits(self.max_body_bytes, self.max_pixels, self.max_pixels_whole)


def _is_of_a_service(name: str, value: str) -> bool:
    """Whether Kubernetes set the variable, judging by the form of its name and value."""
    return any(
        names.fullmatch(name) and values.fullmatch(value) for names, values in _KUBERNETES_VARIABLES
    )


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings from this process's environment.

    Raises:
        SettingsError: a value is not allowed, or a `CIFAR10_` variable is unknown, which would
            otherwise be silently ignored.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in known | _KERNEL_VARIABLES:
            continue
        if not _is_of_a_service(name, value):
            near = did_you_mean(name, known | _KERNEL_VARIABLES)
            hint = near or f" Settings: {', '.join(sorted(known))}."
            message = f"the environment sets {name}, which is not a setting of this server.{hint}"
            raise SettingsError(message)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        given = "" if name.endswith("TOKEN") else f"={first['input']!r}"
        message = f"{name}{given} is not accepted: {first['msg']}"
        raise SettingsError(message) from error
