"""OpenVINO as a second engine on the CPU: a session that runs a model as ONNX Runtime's does.

It has the methods of ``onnxruntime.InferenceSession`` that :class:`cifar10.predictor.Predictor`
uses (:class:`Session`), so nothing else knows which engine runs.
"""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cifar10.errors import InvalidGraphError, ProviderUnavailableError

OPENVINO_PROVIDER: Final = "OpenVINO"
"""Name of this engine, used in place of an ONNX Runtime execution provider."""

OPENVINO_DISTRIBUTION: Final = "openvino"

_CONVERTER: Final = "openvino.tools.ovc"
_ONNX_TYPES: Final = {"u8": "tensor(uint8)", "f32": "tensor(float)"}
"""OpenVINO's name of a datatype → ONNX Runtime's."""


class Tensor(Protocol):
    """Description of an input or output."""

    @property
    def name(self) -> str:
        """Name of the input or output."""

    @property
    def type(self) -> str:
        """Datatype, such as ``tensor(uint8)``."""

    @property
    def shape(self) -> Sequence[Any]:
        """Dimensions; not a number where one varies."""


class Session(Protocol):
    """A loaded model: the part of ``onnxruntime.InferenceSession`` that this project uses."""

    def get_inputs(self) -> Sequence[Tensor]:
        """Return the inputs."""

    def get_outputs(self) -> Sequence[Tensor]:
        """Return the outputs."""

    def get_providers(self) -> Sequence[str]:
        """Return what executes the model, in order of preference."""

    def run(
        self, output_names: Sequence[str], feeds: Mapping[str, NDArray[np.uint8]]
    ) -> Sequence[NDArray[Any]]:
        """Run the model. Any thread may call it."""


@dataclass(frozen=True)
class _Tensor:
    name: str
    type: str
    shape: tuple[int | None, ...]


def check_openvino() -> None:
    """Check that OpenVINO is installed, without loading it: a process may still fork.

    Raises:
        ProviderUnavailableError: it is not.
    """
    if importlib.util.find_spec(OPENVINO_DISTRIBUTION) is None:
        message = (
            "the engine 'openvino' was requested, but the package is not installed. Install the "
            "extra `openvino` (pip install openvino), or unset CIFAR10_ENGINE."
        )
        raise ProviderUnavailableError(message)


class OpenVinoSession:
    """A model in OpenVINO, on the CPU.

    Args:
        onnx: the ONNX file's bytes.
        threads: number of threads inside one operator; with 1, the calling thread does all work.

    Raises:
        ProviderUnavailableError: OpenVINO is not installed.
        InvalidGraphError: OpenVINO cannot run the model.
    """

    def __init__(self, onnx: bytes, threads: int) -> None:
        core = _load_openvino().Core()
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Every worker process would pin itself to the same cores.
            "ENABLE_CPU_PINNING": False,
            # By default bfloat16 where the processor has it: its answers are not the card's.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            compiled = core.compile_model(core.read_model(onnx), "CPU", options)
            self._inputs = [_described(tensor) for tensor in compiled.inputs]
            self._outputs = [_described(tensor) for tensor in compiled.outputs]
            self._request = compiled.create_infer_request()
        except Exception as error:  # all of its errors are RuntimeError, over several lines
            message = f"OpenVINO cannot load the model: {' '.join(str(error).split())}"
            raise InvalidGraphError(message) from error
        self._lock = threading.Lock()

    def get_inputs(self) -> Sequence[Tensor]:
        """Return the inputs."""
        return self._inputs

    def get_outputs(self) -> Sequence[Tensor]:
        """Return the outputs."""
        return self._outputs

    def get_providers(self) -> Sequence[str]:
        """Return the name of this engine."""
        return [OPENVINO_PROVIDER]

    def run(
        self, output_names: Sequence[str], feeds: Mapping[str, NDArray[np.uint8]]
    ) -> Sequence[NDArray[Any]]:
        """Run the model on a batch of any size; the first run of each size is slow."""
        openvino = sys.modules[OPENVINO_DISTRIBUTION]
        with self._lock:  # a request serves one run at a time
            for name, images in feeds.items():
                memory = np.require(images, requirements=("C", "W"))
                self._request.set_tensor(name, openvino.Tensor(memory, shared_memory=True))
            self._request.infer()
            return [np.array(self._request.get_tensor(name).data) for name in output_names]


def _load_openvino() -> Any:
    """Import OpenVINO without its model converter, which we do not need and which reports each
    import to Intel over the network."""
    check_openvino()
    missing = object()
    before = sys.modules.get(_CONVERTER, missing)
    if before is missing:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # importing it then fails
    try:
        return importlib.import_module(OPENVINO_DISTRIBUTION)
    except ImportError as error:
        message = f"OpenVINO is installed but cannot be loaded: {error}"
        raise ProviderUnavailableError(message) from error
    finally:
        if before is missing:
            del sys.modules[_CONVERTER]


def _described(tensor: Any) -> _Tensor:
    kind = tensor.element_type.get_type_name()
    shape = tuple(
        dimension.get_length() if dimension.is_static else None
        for dimension in tensor.partial_shape
    )
    return _Tensor(tensor.any_name, _ONNX_TYPES.get(kind, kind), shape)
