"""Pixels to probabilities: one ONNX Runtime session, on the device it says it is on.

ONNX Runtime falls back from GPU to CPU without an error, and lists providers that cannot run.
Nothing here trusts that list: a device is what a created session reports (``get_providers``), and
``device="cuda"`` forbids the fallback.
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

from cifar10.card import INPUT, OUTPUT, Golden
from cifar10.cuda_batches import BucketedRuns
from cifar10.errors import GoldenMismatchError, InvalidGraphError, ProviderUnavailableError
from cifar10.golden import golden_images
from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]

CPU_PROVIDER: Final = "CPUExecutionProvider"
CUDA_PROVIDER: Final = "CUDAExecutionProvider"

_EXTERNAL_DATA_KEY: Final = b"location"
_EXTERNAL_DATA_TAG: Final = re.compile(
    rb"(?:\x0a|\x8a[\x80-\xff]{0,8}[\x00-\x7f])(?:\x08|\x88[\x80-\xff]{0,8}[\x00-\x7f])\Z",
    re.DOTALL,
)
"""What stands before "location" where it is the key of a StringStringEntryProto, which names the
file of a tensor kept outside: field 1, length 8, each as a varint of 1 to 10 bytes. Protobuf reads
overlong varints too."""

_LONGEST_TAG: Final = 20


@dataclass(frozen=True)
class PredictorOptions:
    """Device, threads and memory of a session."""

    device: Device = "auto"
    threads: int = 1
    """Threads inside one operator. One per worker process serves most requests per core."""
    cuda_device_id: int = 0
    cuda_buckets: tuple[int, ...] = ()
    """On CUDA, the batch sizes that are run, ascending; smaller batches are filled up, larger ones
    split (:mod:`cifar10.cuda_batches`). Empty: batches run as they come, each new size slow once.
    On the CPU no size is slow, and they always run as they come."""
    cuda_memory_bytes: int | None = None
    """The most that the memory arena of one session takes on CUDA; each bucket has one. cuDNN's
    and CUDA's own memory is not in it. None: no bound."""


def likely_device(device: Device) -> Literal["cpu", "cuda"]:
    """Return where a session for ``device`` will execute, as far as is known without making one:
    for ``auto``, CUDA where ONNX Runtime has it and there are an NVIDIA driver and cuDNN (that ONNX
    Runtime lists its provider says nothing of either). Starts nothing, so that a process which
    forks may ask."""
    if device != "auto":
        return device
    has_cuda = CUDA_PROVIDER in ort.get_available_providers() and nvidia_driver_present()
    return "cuda" if has_cuda and cudnn_present() else "cpu"


class Predictor:
    """One loaded model.

    Args:
        onnx: the ONNX file's bytes.
        options: device and threads.

    Raises:
        InvalidGraphError: not an ONNX model, or one that breaks the graph contract
            (uint8 ``image`` (N, 32, 32, 3) in, float32 ``probabilities`` (N, 10) out), or one that
            keeps its weights in other files.
        ProviderUnavailableError: ``device="cuda"`` and CUDA is not what would execute.
    """

    def __init__(self, onnx: bytes, options: PredictorOptions = PredictorOptions()) -> None:
        if _has_external_data(onnx):
            message = (
                "the ONNX model keeps weights in external files; only self-contained ones load"
            )
            raise InvalidGraphError(message)
        self.options = options
        self._session = _create_session(onnx, options)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        """What the session really has, in order of preference."""
        self.provider: str = self.providers[0]
        """What executes."""
        _check_contract(self._session)
        self._bucketed: BucketedRuns | None = None
        if self.device == "cuda" and options.cuda_buckets:
            self._bucketed = self._bucketed_runs(onnx, "cuda")
        if options.device == "auto" and self.device == "cpu" and nvidia_driver_present():
            logger.warning(
                "device auto: there is an NVIDIA driver, but this executes on %s; a session on "
                "CUDA needs the `cuda` extra (CIFAR10_DEVICE=cuda says what is wrong)",
                self.provider,
            )
        elif options.device == "auto":
            logger.info("device auto: executing on %s", self.provider)

    def _bucketed_runs(self, onnx: bytes, device: str) -> BucketedRuns:
        """A session for each bucket: the first is the one there is, all on the same provider."""
        there = [self._session]

        def open_session() -> ort.InferenceSession:
            session = there.pop() if there else _create_session(onnx, self.options)
            if session.get_providers()[0] != self.provider:
                message = f"a second session has {session.get_providers()}, not {self.provider}"
                raise ProviderUnavailableError(message)
            return session

        options = self.options
        return BucketedRuns(open_session, options.cuda_buckets, device, options.cuda_device_id)

    @property
    def device(self) -> str:
        """``"cuda"`` or ``"cpu"``: where the model really executes."""
        return "cuda" if self.provider == CUDA_PROVIDER else "cpu"

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify a batch.

        Args:
            images: uint8 (N, 32, 32, 3), RGB, N ≥ 1.

        Returns:
            float32 (N, 10): class probabilities, each row summing to 1.

        Raises:
            ValueError: another shape or dtype.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE:
            message = (
                f"expected uint8 images of shape (N, 32, 32, 3), got {images.dtype} {images.shape}"
            )
            raise ValueError(message)
        if self._bucketed is not None:
            return self._bucketed.run(images)
        (probabilities,) = self._session.run([OUTPUT.name], {INPUT.name: images})
        result: NDArray[np.float32] = probabilities
        return result

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> None:
        """Run every batch size once, so that no request is the first of its shape."""
        for size in batch_sizes:
            self.predict(np.zeros((size, *IMAGE_SHAPE), np.uint8))

    def check_golden(self, golden: Golden) -> None:
        """Compare the answer to the golden images with the card's.

        Raises:
            GoldenMismatchError: a difference above the card's tolerance: this machine computes
                something else than the one that exported the model.
        """
        found = self.predict(golden_images())
        expected = np.asarray(golden.probabilities, np.float32)
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else 1.0
        if not difference <= golden.tolerance:  # also catches NaN
            message = (
                f"the golden images give probabilities up to {difference:.2g} away from the card's "
                f"(tolerance {golden.tolerance:.2g}) on {self.provider}"
            )
            raise GoldenMismatchError(message)


def _has_external_data(onnx: bytes) -> bool:
    """Whether any tensor of the model, in whichever subgraph, names another file as its place."""
    place = onnx.find(_EXTERNAL_DATA_KEY)
    while place >= 0:
        if _EXTERNAL_DATA_TAG.search(onnx[max(0, place - _LONGEST_TAG) : place]):
            return True
        place = onnx.find(_EXTERNAL_DATA_KEY, place + 1)
    return False


def _create_session(onnx: bytes, options: PredictorOptions) -> ort.InferenceSession:
    if options.device == "cpu" or (options.device == "auto" and not nvidia_driver_present()):
        return _session(onnx, options, [CPU_PROVIDER])
    cuda = (CUDA_PROVIDER, cuda_options(options))
    if options.device == "auto":
        _preload_cuda()
        return _session(onnx, options, [cuda, CPU_PROVIDER])
    if CUDA_PROVIDER not in ort.get_available_providers():
        message = (
            "device 'cuda' was asked for, but this ONNX Runtime was built without CUDA. "
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
    """What the CUDA provider is told (onnxruntime.ai, "CUDA Execution Provider")."""
    told = {
        "device_id": str(options.cuda_device_id),
        # Grown by what is needed: doubled each time, the arena takes up to twice that, for ever.
        "arena_extend_strategy": "kSameAsRequested",
        # No trying of every algorithm at the start, whose winner would differ from run to run.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Full float32, so that a GPU's answers are those that the card's golden answers came from.
        "use_tf32": "0",
    }
    if options.cuda_memory_bytes is not None:
        told["gpu_mem_limit"] = str(options.cuda_memory_bytes)
    return told


def _no_cuda(reason: str) -> str:
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    return (
        "device 'cuda' was asked for, but CUDA is not what would execute "
        f"({first}). Check the NVIDIA driver (nvidia-smi) and the CUDA libraries "
        "(pip install 'onnxruntime-gpu[cuda,cudnn]'), or use device 'cpu'."
    )


def _session(
    onnx: bytes, options: PredictorOptions, providers: list[Any], *, cpu_fallback: bool = True
) -> ort.InferenceSession:
    session_options = ort.SessionOptions()
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = 3
    # Spinning threads starve the neighbours on shared cores.
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not cpu_fallback:
        session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return ort.InferenceSession(onnx, session_options, providers=providers)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        message = f"ONNX Runtime cannot load the model: {error}"
        raise InvalidGraphError(message) from error


def _check_contract(session: ort.InferenceSession) -> None:
    found = [
        (node.name, node.type, tuple(node.shape[1:]))
        for node in (*session.get_inputs(), *session.get_outputs())
    ]
    expected = [
        (INPUT.name, "tensor(uint8)", IMAGE_SHAPE),
        (OUTPUT.name, "tensor(float)", (CLASS_COUNT,)),
    ]
    if found != expected:
        message = f"the graph has inputs and outputs {found}, the contract is {expected}"
        raise InvalidGraphError(message)


def nvidia_driver_present() -> bool:
    """Return whether an NVIDIA driver can be loaded; starts nothing."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def cudnn_present() -> bool:
    """Whether the CUDA provider would find cuDNN: as a package of pip's, or as the system's."""
    try:
        if importlib.util.find_spec("nvidia.cudnn") is not None:
            return True
    except ModuleNotFoundError:
        pass  # not even the package that it would be in
    return ctypes.util.find_library("cudnn") is not None


def _preload_cuda() -> None:
    """Load the CUDA libraries that pip installed, where ONNX Runtime cannot find them itself."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
