"""A model on a GPU, in batches of a few fixed sizes, each with a session and memory of its own.

On CUDA a shape that is new is slow: ONNX Runtime's convolutions make a plan for it, each time that
a batch has another size than the one before (``Conv::UpdateState``, onnxruntime 1.27), and memory
is fetched. So there are only a few sizes, a smaller batch is filled up to the next, and each size
has a session that never sees another. Input and output are bound to memory on the device that is
fetched once (ONNX Runtime's I/O binding), so that a run copies pixels in, probabilities out, and
allocates nothing for them.

Nothing here is CUDA's own: the same code runs on the CPU, where it is tested.
"""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cifar10.card import INPUT, OUTPUT
from cifar10.labels import CLASS_COUNT, IMAGE_SHAPE


def runs_of(count: int, buckets: Sequence[int]) -> list[tuple[int, int]]:
    """How ``count`` images are run: (images, the bucket that they are filled up to), in order.

    The largest bucket as often as it is full, then the smallest that holds the rest.

    Args:
        count: at least 1.
        buckets: ascending.
    """
    largest = buckets[-1]
    runs = [(largest, largest)] * (count // largest)
    rest = count % largest
    if rest:
        runs.append((rest, next(bucket for bucket in buckets if bucket >= rest)))
    return runs


class BoundRun:
    """One session for batches of one size.

    Args:
        session: of the model.
        size: of the batches.
        device: ``cuda`` or ``cpu``, as ONNX Runtime names it.
        device_id: which one.
    """

    def __init__(
        self, session: ort.InferenceSession, size: int, device: str, device_id: int
    ) -> None:
        self._session = session
        self._filled = np.zeros((size, *IMAGE_SHAPE), np.uint8)
        self._input = _memory((size, *IMAGE_SHAPE), np.uint8, device, device_id)
        self._output = _memory((size, CLASS_COUNT), np.float32, device, device_id)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT.name, self._input)
        self._binding.bind_ortvalue_output(OUTPUT.name, self._output)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (N, 32, 32, 3) with N up to the size → float32 (N, 10), the caller's own."""
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
        open_session: makes one more session of the model.
        buckets: ascending.
        device: as :class:`BoundRun`.
        device_id: as :class:`BoundRun`.
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
        """uint8 (N, 32, 32, 3) → float32 (N, 10)."""
        found = []
        start = 0
        with self._lock:  # the bound memory is one run's at a time
            for count, bucket in runs_of(len(images), self.buckets):
                found.append(self._runs[bucket].run(images[start : start + count]))
                start += count
        return found[0] if len(found) == 1 else np.concatenate(found)


def _memory(shape: tuple[int, ...], kind: type, device: str, device_id: int) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, device, device_id)
