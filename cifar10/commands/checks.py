"""Checks of ``cifar10 doctor``: one function per subject, each yielding findings with a remedy.

A finding is ``ok``, ``missing`` (something optional is absent) or ``problem``.
"""

import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from cifar10.commands import discovery
from cifar10.commands.ports import free_port_after, is_free
from cifar10.environment import PROJECT_ROOT, data_source, engine, models_dir, weights_dir
from cifar10.errors import Cifar10Error
from cifar10.machine import usable_cores

if TYPE_CHECKING:
    from cifar10.store import StoredModel

State = Literal["ok", "missing", "problem"]

OLDEST_PYTHON: Final = (3, 11)
PORT: Final = 3000

_INT8_INSTRUCTIONS: Final = {
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "amx_int8": "AMX int8",
    "asimddp": "Arm dot product",
}
"""Flag in /proc/cpuinfo → name of an instruction set that speeds up int8 models most."""
_PIN: Final = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    subject: str
    state: State
    found: str
    remedy: str = ""
    """Remedy; empty if none is needed."""


def python() -> Iterator[Finding]:
    """Check the interpreter's version."""
    version = platform.python_version()
    if sys.version_info >= OLDEST_PYTHON:
        yield Finding("Python", "ok", version)
    else:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        yield Finding("Python", "problem", version, f"install Python {oldest} or newer")


def packages() -> Iterator[Finding]:
    """Compare the installed packages with the requirements and the pins in constraints.txt."""
    pins = _pins(PROJECT_ROOT / "constraints.txt")
    by_extra: dict[str, dict[str, str | None]] = {}
    for name, extra in discovery.requirements():
        if extra == "cuda":  # checked by providers
            continue
        by_extra.setdefault(extra, {})[name] = _installed(name)
    others: list[str] = []
    for extra, versions in by_extra.items():
        absent = [name for name, version in versions.items() if version is None]
        if extra == "" and {"onnxruntime", "onnxruntime-gpu"} & set(versions) - set(absent):
            absent = [name for name in absent if not name.startswith("onnxruntime")]
        if not (extra and absent):  # a package of an unused extra may come from anywhere
            others += [
                f"{name} {version} ({pins[_normal(name)]})"
                for name, version in versions.items()
                if version is not None and pins.get(_normal(name), version) != version
            ]
        subject = f"packages [{extra}]" if extra else "packages"
        if absent:
            state: State = "missing" if extra else "problem"
            yield Finding(
                subject,
                state,
                f"not installed: {', '.join(absent)}",
                discovery.install_command_of(extra),
            )
        else:
            yield Finding(subject, "ok", "all installed" if len(versions) > 1 else "installed")
    if not pins:
        yield Finding("constraints", "missing", "no constraints.txt to compare with")
    elif others:
        different = list(dict.fromkeys(others))
        yield Finding(
            "constraints",
            "missing",
            f"versions differ from those tested: {', '.join(different)}",
            discovery.install_command_of(""),
        )
    else:
        yield Finding("constraints", "ok", "all versions match constraints.txt")


def processor() -> Iterator[Finding]:
    """Check whether the processor has instructions for int8 models."""
    flags, name = _cpu_flags()
    cores = usable_cores()
    found = [title for flag, title in _INT8_INSTRUCTIONS.items() if flag in flags]
    if not flags:
        yield Finding("CPU", "missing", f"{name}, {cores} cores; features cannot be read")
    elif found:
        yield Finding("CPU", "ok", f"{name}, {cores} cores; int8: {', '.join(found)}")
    else:
        yield Finding(
            "CPU",
            "missing",
            f"{name}, {cores} cores; no VNNI: int8 models gain less than on newer processors",
            "compare both on this machine: cifar10 bench run compact compact_int8",
        )


def models() -> Iterator[Finding]:
    """Check every model of the store: its card, and its file's digest."""
    from cifar10.store import ModelStore

    store = ModelStore(models_dir())
    names = store.names()
    if not names:
        remedy = "point CIFAR10_MODELS to a store, or: cifar10 train simple_cnn && cifar10 export "
        yield Finding("models", "problem", f"none in {store.root}", f"{remedy}simple_cnn")
    for name in names:
        try:
            card = store.load(name).card
        except Cifar10Error as error:
            yield Finding(f"model {name}", "problem", str(error), f"cifar10 export {name}")
        else:
            size = f"{card.size_bytes / 1e6:.2f} MB"
            yield Finding(f"model {name}", "ok", f"SHA-256 {card.sha256[:12]}…, {size}")


def providers() -> Iterator[Finding]:
    """Check which execution providers actually execute a model on this machine."""
    from cifar10.predictor import (
        CUDA_PROVIDER,
        Predictor,
        PredictorOptions,
        cudnn_present,
        nvidia_driver_present,
    )
    from cifar10.released import default_model
    from cifar10.store import ModelStore

    store = ModelStore(models_dir())
    names = store.names()
    name = default_model(names, "cpu") or (names[0] if names else None)
    if name is None:
        yield Finding("providers", "missing", "no model to test them with")
        return
    try:
        stored = store.load(name)
        predictor = Predictor(stored.onnx, PredictorOptions(device="cpu"))
        predictor.check_card(stored.card)
    except Cifar10Error as error:
        yield Finding("CPU provider", "problem", str(error), "reinstall onnxruntime")
        return
    yield Finding("CPU provider", "ok", f"executes {name}, its golden answer matches")
    yield from _openvino(stored)
    import onnxruntime

    driver, cudnn = nvidia_driver_present(), cudnn_present()
    listed = CUDA_PROVIDER in onnxruntime.get_available_providers()
    there = [what for what, is_there in (("driver", driver), ("cuDNN", cudnn)) if is_there]
    state = f"{' and '.join(there) or 'neither an NVIDIA driver nor cuDNN'} found"
    if not driver:
        yield Finding("CUDA", "missing", state, "not needed for serving on the CPU")
        return
    if not listed:
        remedy = "pip install onnxruntime-gpu in place of onnxruntime"
        yield Finding("CUDA", "problem", f"{state}; ONNX Runtime is built without CUDA", remedy)
        return
    try:
        predictor = Predictor(stored.onnx, PredictorOptions(device="cuda"))
        predictor.check_card(stored.card)
    except Cifar10Error as error:
        yield Finding("CUDA", "problem", str(error), discovery.install_command_of("cuda"))
    else:
        yield Finding("CUDA", "ok", f"executes {name}, its golden answer matches; {state}")


def _openvino(stored: "StoredModel") -> Iterator[Finding]:
    """Check the second engine, which is optional unless ``CIFAR10_ENGINE`` names it."""
    from cifar10.openvino_session import check_openvino
    from cifar10.predictor import Predictor, PredictorOptions

    name = stored.card.name
    try:
        wanted = engine() == "openvino"
    except Cifar10Error as error:
        yield Finding("engine", "problem", str(error), "unset CIFAR10_ENGINE")
        return
    state: State = "problem" if wanted else "missing"
    try:
        check_openvino()
    except Cifar10Error:
        remedy = discovery.install_command_of("openvino")
        yield Finding("OpenVINO", state, "not installed; a second engine, optional", remedy)
        return
    try:
        Predictor(stored.onnx, PredictorOptions(engine="openvino")).check_card(stored.card)
    except Cifar10Error as error:
        remedy = "unset CIFAR10_ENGINE: ONNX Runtime is the default"
        yield Finding("OpenVINO", state, f"{name}: {error}", remedy)
    else:
        used = "in use (CIFAR10_ENGINE)" if wanted else "not in use; CIFAR10_ENGINE=openvino"
        yield Finding("OpenVINO", "ok", f"executes {name}, its golden answer matches; {used}")


def data() -> Iterator[Finding]:
    """Check the dataset and the pretrained weights."""
    from cifar10.dataset import SYNTHETIC, is_cached

    source = data_source()
    if source == SYNTHETIC:
        yield Finding("dataset", "ok", "synthetic (CIFAR10_DATA)")
    elif source is not None and not Path(source).exists():
        remedy = "point CIFAR10_DATA to a copy, or unset it and run: cifar10 data"
        yield Finding("dataset", "problem", f"CIFAR10_DATA: nothing at {source}", remedy)
    elif is_cached(source):
        yield Finding("dataset", "ok", f"{source or 'the official archive'}, validated and cached")
    elif source is not None:
        yield Finding("dataset", "ok", f"{source}, not read yet")
    else:
        remedy = "cifar10 data (downloads it), or --data PATH or CIFAR10_DATA"
        yield Finding("dataset", "missing", "the official archive is not cached", remedy)
    folder = weights_dir()
    found = sorted(folder.glob("*.h5")) if folder is not None and folder.is_dir() else []
    if folder is None:
        yield Finding("weights", "ok", "Keras downloads them when they are needed")
    elif found:
        yield Finding("weights", "ok", f"{len(found)} in {folder}")
    else:
        remedy = "put <backbone>.weights.h5 there, or unset CIFAR10_WEIGHTS"
        yield Finding("weights", "problem", f"CIFAR10_WEIGHTS: none in {folder}", remedy)


def browser() -> Iterator[Finding]:
    """Check for the browser that the page's tests use."""
    names = ("chromium", "chromium-browser", "google-chrome")
    there = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if there and driver:
        yield Finding("browser", "ok", f"{there}, {driver}")
    else:
        remedy = "only the page's tests need it: apt-get install chromium chromium-driver"
        yield Finding("browser", "missing", "no Chromium with chromedriver", remedy)


def port() -> Iterator[Finding]:
    """Check whether the server's default port is free."""
    if is_free(None, PORT):
        yield Finding("port", "ok", f"{PORT} is free")
    else:
        other = free_port_after(PORT) or "PORT"
        yield Finding("port", "missing", f"{PORT} is in use", f"cifar10 serve --port {other}")


CHECKS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    python, packages, processor, providers, models, data, browser, port,
)  # fmt: skip


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pins(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    return {_normal(name): version for name, version in _PIN.findall(text)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _cpu_flags() -> tuple[set[str], str]:
    """Return the first processor's flags and name; no flags without /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set(), platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return set(flags.split()), fields.get("model name") or platform.machine()
