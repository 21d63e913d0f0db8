"""Predictor: runs one model in ONNX Runtime, or in OpenVINO, on a verified device.

ONNX Runtime falls back from GPU to CPU without an error, and lists providers that cannot run. This
module does not trust that list: the device is what a created session reports (``get_providers``),
and ``device="cuda"`` forbids the fallback.
"""

import ctypes
import ctypes.util
import importlib.util
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cifar10.card import ModelCard
from cifar10.contract import (
    INPUT,
    MAX_CLASSES,
    MAX_SIDE,
    MIN_CLASSES,
    MIN_SIDE,
    OUTPUT,
    ImageShape,
    broken_shape,
    input_tensor,
    is_probabilities,
    output_tensor,
)
from cifar10.cuda_batches import BucketedRuns
from cifar10.environment import Engine
from cifar10.errors import GoldenMismatchError, InvalidGraphError, ProviderUnavailableError
from cifar10.golden import golden_images
from cifar10.openvino_session import OPENVINO_PROVIDER, OpenVinoSession, Session

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]

CPU_PROVIDER: Final = "CPUExecutionProvider"
CUDA_PROVIDER: Final = "CUDAExecutionProvider"

_EXTERNAL_DATA_KEY: Final = b"location"
_EXTERNAL_DATA_TAG: Final = re.compile(
    rb"(?:\x0a|\x8a[\x80-\xff]{0,8}[\x00-\x7f])(?:\x08|\x88[\x80-\xff]{0,8}[\x00-\x7f])\Z",
    re.DOTALL,
)
"""Bytes before "location" when it is the key of a StringStringEntryProto, which names the external
file of a tensor: field 1, length 8, each as a varint of 1 to 10 bytes. Protobuf accepts overlong
varints too."""

_LONGEST_TAG: Final = 20


@dataclass(frozen=True)
class PredictorOptions:
    """Device, threads and memory of a session."""

    device: Device = "auto"
    threads: int = 1
    """Number of threads inside one operator. One per worker process gives the highest throughput
    per core."""
    cuda_device_id: int = 0
    cuda_buckets: tuple[int, ...] = ()
    """Batch sizes used on CUDA, ascending. Smaller batches are padded and larger ones split
    (:mod:`cifar10.cuda_batches`). Empty: batches keep their size, and each new size is slow once.
    Ignored on the CPU, where no size is slow."""
    cuda_memory_bytes: int | None = None
    """Size limit of one session's memory arena on CUDA; each bucket has a session. It does not
    count the memory of cuDNN and CUDA themselves. None: no limit."""
    engine: Engine = "onnxruntime"
    """Library that runs the model. OpenVINO runs it on the CPU."""


def likely_device(device: Device, engine: Engine = "onnxruntime") -> Literal["cpu", "cuda"]:
    """Return the device on which a session for ``device`` will probably execute.

    For ``auto`` that is CUDA if ONNX Runtime has the provider and both an NVIDIA driver and cuDNN
    are found; ONNX Runtime lists the provider without either. No session is created, so a process
    may call this before it forks.
    """
    if device != "auto":
        return device
    if engine == "openvino":
        return "cpu"
    has_cuda = CUDA_PROVIDER in ort.get_available_providers() and nvidia_driver_present()
    return "cuda" if has_cuda and cudnn_present() else "cpu"


class Predictor:
    """One loaded model.

    Args:
        onnx: the ONNX file's bytes.
        options: device, threads and memory.

    Raises:
        InvalidGraphError: not an ONNX model, or one that violates the graph contract
            (uint8 ``image`` (N, H, W, 3) in, float32 ``probabilities`` (N, L) out) or keeps its
            weights in other files.
        ProviderUnavailableError: ``device="cuda"``, but the model would not execute on CUDA; or
            the engine is not installed.
    """

    def __init__(self, onnx: bytes, options: PredictorOptions = PredictorOptions()) -> None:
        if _has_external_data(onnx):
            message = (
                "the ONNX model keeps weights in external files; only self-contained models load"
            )
            raise InvalidGraphError(message)
        self.options = options
        self._session = _create_session(onnx, options)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        """Execution providers of the created session, in order of preference; ``OpenVINO`` where
        that engine runs it."""
        self.provider: str = self.providers[0]
        """Execution provider that runs the model."""
        _check_contract(self._session)
        height, width = self._session.get_inputs()[0].shape[1:3]
        self.image_shape: ImageShape = (height, width, 3)
        """Shape of the images that the graph takes."""
        self.class_count: int = self._session.get_outputs()[0].shape[1]
        """Number of classes that the graph knows."""
        self._bucketed: BucketedRuns | None = None
        if self.device == "cuda" and options.cuda_buckets:
            self._bucketed = self._bucketed_runs(onnx, "cuda")
        is_auto = options.device == "auto" and options.engine == "onnxruntime"
        if is_auto and self.device == "cpu" and nvidia_driver_present():
            logger.warning(
                "device auto: an NVIDIA driver is present, but the model runs on %s; CUDA needs "
                "the `cuda` extra (CIFAR10_DEVICE=cuda shows what is wrong)",
                self.provider,
            )
        elif is_auto:
            logger.info("device auto: executing on %s", self.provider)

    def _bucketed_runs(self, onnx: bytes, device: str) -> BucketedRuns:
        """Return runs with one session per bucket, all on the same provider. The first bucket uses
        the existing session."""
        existing = [self._session]

        def open_session() -> ort.InferenceSession:
            session = existing.pop() if existing else _create_session(onnx, self.options)
            if session.get_providers()[0] != self.provider:
                message = f"a second session has {session.get_providers()}, not {self.provider}"
                raise ProviderUnavailableError(message)
            return session

        options = self.options
        return BucketedRuns(open_session, options.cuda_buckets, device, options.cuda_device_id)

    @property
    def device(self) -> str:
        """Device on which the model actually executes, ``"cuda"`` or ``"cpu"``."""
        return "cuda" if self.provider == CUDA_PROVIDER else "cpu"

    @property
    def compiles_each_size(self) -> bool:
        """Whether the first run of each batch size is slow, because it compiles kernels."""
        return self.provider == OPENVINO_PROVIDER

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify a batch.

        Args:
            images: uint8 (N, *image_shape), RGB, N ≥ 1.

        Returns:
            float32 (N, class_count): class probabilities, each row summing to 1.

        Raises:
            ValueError: the shape or dtype is wrong.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.image_shape:
            height, width, channels = self.image_shape
            message = (
                f"expected uint8 images of shape (N, {height}, {width}, {channels}), "
                f"got {images.dtype} {images.shape}"
            )
            raise ValueError(message)
        if self._bucketed is not None:
            return self._bucketed.run(images)
        (probabilities,) = self._session.run([OUTPUT.name], {INPUT.name: images})
        result: NDArray[np.float32] = probabilities
        return result

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> None:
        """Run every batch size once, so that no request pays for the first run of its shape."""
        for size in batch_sizes:
            self.predict(np.zeros((size, *self.image_shape), np.uint8))

    def check_card(self, card: ModelCard) -> None:
        """Check the graph's shapes and its answer to the golden images against the card.

        Raises:
            InvalidGraphError: the card describes images or classes of another model.
            GoldenMismatchError: the difference exceeds the card's tolerance: this machine computes
                different results than the one that exported the model.
        """
        found = (input_tensor(self.image_shape), output_tensor(self.class_count))
        if found != (card.input, card.output):
            message = (
                f"the graph of {card.name!r} has {found[0].shape} → {found[1].shape}, but its card "
                f"says {card.input.shape} → {card.output.shape}. Run: cifar10 export {card.name}"
            )
            raise InvalidGraphError(message)
        golden = card.golden
        answers = self.predict(golden_images(self.image_shape))
        expected = np.asarray(golden.probabilities, np.float32)
        difference = 1.0
        if answers.shape == expected.shape:
            difference = float(np.abs(answers - expected).max())
        if not difference <= golden.tolerance:  # also catches NaN
            message = (
                f"the golden images give probabilities up to {difference:.2g} away from the card's "
                f"(tolerance {golden.tolerance:.2g}) on {self.provider}"
            )
            raise GoldenMismatchError(message)


def _has_external_data(onnx: bytes) -> bool:
    """Return whether any tensor of the model, in any subgraph, is stored in another file."""
    place = onnx.find(_EXTERNAL_DATA_KEY)
    while place >= 0:
        if _EXTERNAL_DATA_TAG.search(onnx[max(0, place - _LONGEST_TAG) : place]):
            return True
        place = onnx.find(_EXTERNAL_DATA_KEY, place + 1)
    return False


def _create_session(onnx: bytes, options: PredictorOptions) -> Session:
    if options.engine == "openvino":
        if options.device == "cuda":
            message = (
                "device 'cuda' was requested, but the engine 'openvino' runs on the CPU. Use "
                "device 'cpu', or CIFAR10_ENGINE=onnxruntime."
            )
            raise ProviderUnavailableError(message)
        return OpenVinoSession(onnx, options.threads)
    if options.device == "cpu" or (options.device == "auto" and not nvidia_driver_present()):
        return _session(onnx, options, [CPU_PROVIDER])
    cuda = (CUDA_PROVIDER, cuda_options(options))
    if options.device == "auto":
        _preload_cuda()
        return _session(onnx, options, [cuda, CPU_PROVIDER])
    if CUDA_PROVIDER not in ort.get_available_providers():
        message = (
            "device 'cuda' was requested, but this ONNX Runtime was built without CUDA. "
            "Install the `cuda` extra (onnxruntime-gpu), or use device 'cpu'."
        )
        raise ProviderUnavailableError(message)
    _preload_cuda()
    try:
        session = _session(onnx, options, [cuda], cpu_fallback=False)
    except InvalidGraphError as error:
        raise ProviderUnavailableError(_no_cuda(str(error.__cause__ or error))) from error
    if session.get_providers()[0] != CUDA_PROVIDER:
        raise ProviderUnavailableError(_no_cuda(f"the session has {session.get_providers()}"))
    return session


def cuda_options(options: PredictorOptions) -> dict[str, str]:
    """Return the options of the CUDA provider (onnxruntime.ai, "CUDA Execution Provider")."""
    provider_options = {
        "device_id": str(options.cuda_device_id),
        # Extend the arena by what is needed; doubling could keep twice that allocated.
        "arena_extend_strategy": "kSameAsRequested",
        # Exhaustive search would be slow to start and choose differently from run to run.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Full float32, so that a GPU's answers match the card's golden answers.
        "use_tf32": "0",
    }
    if options.cuda_memory_bytes is not None:
        provider_options["gpu_mem_limit"] = str(options.cuda_memory_bytes)
    return provider_options


def _no_cuda(reason: str) -> str:
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return (
        "device 'cuda' was requested, but the model would not run on CUDA "
        f"({first}). Check the NVIDIA driver (nvidia-smi) and the CUDA libraries "
        "(pip install 'onnxruntime-gpu[cuda,cudnn]'), or use device 'cpu'."
    )


def _session(
    onnx: bytes, options: PredictorOptions, providers: list[Any], *, cpu_fallback: bool = True
) -> Session:
    session_options = ort.SessionOptions()
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = 3
    # Spinning threads take CPU time from other processes on shared cores.
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not cpu_fallback:
        session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session: Session = ort.InferenceSession(onnx, session_options, providers=providers)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        message = f"ONNX Runtime cannot load the model: {error}"
        raise InvalidGraphError(message) from error
    return session


def _check_contract(session: Session) -> None:
    found = [
        (node.name, node.type, tuple(node.shape))
        for node in (*session.get_inputs(), *session.get_outputs())
    ]
    expected = [(INPUT.name, "tensor(uint8)"), (OUTPUT.name, "tensor(float)")]
    shapes = [shape for *_, shape in found]
    if (
        [(name, kind) for name, kind, _ in found] != expected
        or broken_shape(shapes[0][1:]) is not None
        or not is_probabilities(shapes[1])
    ):
        message = (
            f"the graph has inputs and outputs {found}, but the contract is uint8 {INPUT.name!r} "
            f"(N, H, W, 3) in, float32 {OUTPUT.name!r} (N, L) out, with H and W from {MIN_SIDE} to "
            f"{MAX_SIDE} and L from {MIN_CLASSES} to {MAX_CLASSES:,}"
        )
        raise InvalidGraphError(message)


def nvidia_driver_present() -> bool:
    """Return whether an NVIDIA driver can be loaded. Does not initialise CUDA."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def cudnn_present() -> bool:
    """Return whether the CUDA provider would find cuDNN, installed by pip or by the system."""
    try:
        if importlib.util.find_spec("nvidia.cudnn") is not None:
            return True
    except ModuleNotFoundError:
        pass  # its parent package is missing too
    return ctypes.util.find_library("cudnn") is not None


def _preload_cuda() -> None:
    """Load CUDA libraries installed by pip, which ONNX Runtime may not find itself."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
