"""Load a model in a fresh process, run it, and print the resources used as JSON.

Run by :mod:`bench.measure.resources` as
``python -m bench.measure.probe FILE DEVICE THREADS BATCH START``, where START is the parent
process's ``time.monotonic_ns()``, a clock that all processes share.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil  # type: ignore[import-untyped]

from cifar10.contract import INPUT
from cifar10.environment import engine
from cifar10.predictor import Predictor, PredictorOptions


def main() -> None:
    """Load the model, run it, and print the figures."""
    file, device, threads, batch_size, start_ns = sys.argv[1:]
    imported_ns = time.monotonic_ns()
    process = psutil.Process()
    resident_libraries = process.memory_info().rss
    onnx = Path(file).read_bytes()
    before_ns = time.monotonic_ns()
    options = PredictorOptions(device=device, threads=int(threads), engine=engine())  # type: ignore[arg-type]
    predictor = Predictor(onnx, options)
    loaded_ns = time.monotonic_ns()
    predictor.warm_up()
    answered_ns = time.monotonic_ns()
    resident_ready = process.memory_info().rss
    predictor.warm_up((int(batch_size),))
    start = {
        "import_ns": imported_ns - int(start_ns),
        "session_ns": loaded_ns - before_ns,
        "first_answer_ns": answered_ns - loaded_ns,
        "ready_ns": answered_ns - int(start_ns),
        "resident_bytes_libraries": resident_libraries,
        "resident_bytes_ready": resident_ready,
        "peak_resident_bytes": _peak_resident_bytes(process),
    }
    largest, total = _activation_bytes(onnx, predictor)
    answer = {
        "provider": predictor.provider,
        "start": start,
        "activation_bytes_largest": largest,
        "activation_bytes_total": total,
    }
    sys.stdout.write(json.dumps(answer))


def _peak_resident_bytes(process: Any) -> int:
    """Return this program's peak resident memory according to the kernel (``VmHWM``).

    ``ru_maxrss`` would include the peak of the process that forked this one.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    memory = process.memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def _activation_bytes(onnx: bytes, predictor: Predictor) -> tuple[int, int] | tuple[None, None]:
    """Return the bytes of activations in the optimised graph, from a profile of one image.

    Returns:
        The maximum of inputs and outputs of one node together, and the outputs of all nodes.
        Weights are excluded. None if the profile has no sizes, or the model is not in ONNX
        Runtime.
    """
    if predictor.options.engine != "onnxruntime":
        return None, None
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as folder:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.log_severity_level = 3
        session = ort.InferenceSession(onnx, options, providers=list(predictor.providers))
        session.run(None, {INPUT.name: np.zeros((1, *predictor.image_shape), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_text())
    inputs_and_outputs = []
    outputs = []
    for event in events:
        sizes = event.get("args", {})
        if event.get("cat") == "Node" and "output_size" in sizes and "activation_size" in sizes:
            outputs.append(int(sizes["output_size"]))
            inputs_and_outputs.append(int(sizes["activation_size"]) + outputs[-1])
    if not outputs:
        return None, None
    return max(inputs_and_outputs), sum(outputs)


if __name__ == "__main__":
    main()
