"""Run a model on a GPU in batches of a few fixed sizes, each with its own session and memory.

On CUDA a change of shape is slow: whenever a batch's size differs from the previous one, ONNX
Runtime's convolutions make a new plan (``Conv::UpdateState``, onnxruntime 1.27), and memory is
allocated. So only a few sizes are used: a smaller batch is padded to the next size, and each size
has its own session. Input and output are bound to device memory that is allocated once (ONNX
Runtime's I/O binding), so that a run only copies pixels in and probabilities out.

Nothing here is specific to CUDA: the same code runs on the CPU, where it is tested.
"""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cifar10.contract import INPUT, OUTPUT


def runs_of(count: int, buckets: Sequence[int]) -> list[tuple[int, int]]:
    """Split ``count`` images into runs: (images, size of the bucket they are padded to), in order.

    Uses the largest bucket as often as it can be filled, then the smallest that holds the rest.

    Args:
        count: number of images, at least 1.
        buckets: bucket sizes, ascending.
    """
    largest = buckets[-1]
    runs = [(largest, largest)] * (count // largest)
    rest = count % largest
    if rest:
        runs.append((rest, next(bucket for bucket in buckets if bucket >= rest)))
    return runs


class BoundRun:
    """Runs batches of one size in one session, with bound memory.

    Args:
        session: a session of the model.
        size: the batch size.
        device: ``cuda`` or ``cpu``, as ONNX Runtime names it.
        device_id: number of the device.
    """

    def __init__(
        self, session: ort.InferenceSession, size: int, device: str, device_id: int
    ) -> None:
        self._session = session
        image_shape = session.get_inputs()[0].shape[1:]
        class_count = session.get_outputs()[0].shape[1]
        self._filled = np.zeros((size, *image_shape), np.uint8)
        self._input = _memory(self._filled.shape, np.uint8, device, device_id)
        self._output = _memory((size, class_count), np.float32, device, device_id)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT.name, self._input)
        self._binding.bind_ortvalue_output(OUTPUT.name, self._output)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run at most ``size`` images: uint8 (N, H, W, 3) → float32 (N, L), a copy."""
        count = len(images)
        self._filled[:count] = images
        self._input.update_inplace(self._filled)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return np.array(self._output.numpy()[:count])


class BucketedRuns:
    """Runs batches of any size as batches of the sizes ``buckets``. Any thread may call it.

    Args:
        open_session: creates another session of the model.
        buckets: the batch sizes, ascending.
        device: see :class:`BoundRun`.
        device_id: see :class:`BoundRun`.
    """

    def __init__(
        self,
        open_session: Callable[[], ort.InferenceSession],
        buckets: Sequence[int],
        device: str,
        device_id: int = 0,
    ) -> None:
        self.buckets = tuple(buckets)
        self._runs = {size: BoundRun(open_session(), size, device, device_id) for size in buckets}
        self._lock = threading.Lock()

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run a batch of any size: uint8 (N, H, W, 3) → float32 (N, L)."""
        found = []
        start = 0
        with self._lock:  # the bound memory serves one run at a time
            for count, bucket in runs_of(len(images), self.buckets):
                found.append(self._runs[bucket].run(images[start : start + count]))
                start += count
        return found[0] if len(found) == 1 else np.concatenate(found)


def _memory(shape: tuple[int, ...], kind: type, device: str, device_id: int) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, device, device_id)
