"""The server's own settings, read from the environment once.

| variable                   | is                                          | otherwise        |
|----------------------------|---------------------------------------------|------------------|
| `CIFAR10_DEVICE`           | `auto`, `cpu` or `cuda`                     | `auto`           |
| `CIFAR10_DEFAULT_MODEL`    | the model that answers without `?model=`    | `simple_cnn`     |
| `CIFAR10_LOAD`             | the models to load, separated by commas     | all in the store |
| `CIFAR10_WORKERS`          | worker processes                            | 1                |
| `CIFAR10_THREADS`          | ONNX Runtime threads in each worker         | 1                |
| `CIFAR10_MAX_BODY_BYTES`   | the largest body accepted                   | 10 MiB           |
| `CIFAR10_MAX_PIXELS`       | the most pixels of a JPEG                   | 64,000,000       |
| `CIFAR10_MAX_PIXELS_WHOLE` | ... of a PNG, WebP or progressive JPEG      | 24,000,000       |
| `CIFAR10_DEADLINE_SECONDS` | from the request's first byte to its answer | 10               |
| `CIFAR10_QUEUE_BOUND`      | images of one model waiting or running      | 1,024            |
| `CIFAR10_MAX_BATCH`        | images in one run of a model, at most       | 32               |
| `CIFAR10_MAX_IMAGES`       | images in one request, at most              | 512              |

(Where the models are, `CIFAR10_MODELS`, and the page's efficiency table, `CIFAR10_RESULTS`, is the
kernel's: see `cifar10/environment.py`.)
"""

import difflib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cifar10.errors import SettingsError
from cifar10.images import DecodeLimits
from cifar10.predictor import Device

PREFIX: Final = "CIFAR10_"

DEFAULT_MODEL: Final = "simple_cnn"

_KERNEL_VARIABLES: Final = {
    "CIFAR10_DATA",
    "CIFAR10_MODELS",
    "CIFAR10_RESULTS",
    "CIFAR10_WEIGHTS",
    "CIFAR10_CACHE",
}

_KUBERNETES_VARIABLE: Final = re.compile(r"CIFAR10_(SERVICE_(HOST|PORT.*)|PORT(_.*)?)")
"""What Kubernetes puts into every container beside a Service that is named ``cifar10``."""


class Settings(BaseSettings):
    """What the server does, in one frozen record."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    device: Device = "auto"
    default_model: str | None = None
    """None: ``simple_cnn``, or the store's only model."""
    load: Annotated[tuple[str, ...], NoDecode] = ()
    """Empty: all in the store."""
    workers: int = Field(default=1, ge=1, le=256)
    threads: int = Field(default=1, ge=1, le=256)
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    max_pixels: int = Field(default=64_000_000, ge=1024)
    max_pixels_whole: int = Field(default=24_000_000, ge=1024)
    deadline_seconds: float = Field(default=10.0, gt=0, le=3600)
    queue_bound: int = Field(default=1024, ge=1)
    max_batch: int = Field(default=32, ge=1, le=1024)
    max_images: int = Field(default=512, ge=1)

    @field_validator("load", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @property
    def decode_limits(self) -> DecodeLimits:
        """What is refused before it is decoded."""
        return DecodeLimits(self.max_body_bytes, self.max_pixels, self.max_pixels_whole)


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process's environment.

    Raises:
        SettingsError: a value that is not allowed, or a `CIFAR10_` variable that does not exist,
            which would otherwise be a setting that silently does nothing.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if not name.startswith(PREFIX) or name in known | _KERNEL_VARIABLES:
            continue
        if not _KUBERNETES_VARIABLE.fullmatch(name):
            near = difflib.get_close_matches(name, known | _KERNEL_VARIABLES, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
            message = f"the environment sets {name}, which is no setting of this server; {hint}"
            raise SettingsError(message)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        message = f"{name}={first['input']!r} is not accepted: {first['msg']}"
        raise SettingsError(message) from error
