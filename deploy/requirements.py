"""Print the packages that an image needs, from ``pyproject.toml`` in the current folder.

``python requirements.py cpu`` replaces ``onnxruntime-gpu`` by ``onnxruntime``, which is a fifth of
its size; ``cuda`` adds the CUDA libraries.
"""

import sys
import tomllib
from pathlib import Path

GPU_RUNTIME = "onnxruntime-gpu"


def requirements(project: dict, target: str) -> list[str]:
    """Return the requirement lines of ``target``, ``cpu`` or ``cuda``."""
    needed = list(project["dependencies"])
    if target == "cuda":
        return needed + project["optional-dependencies"]["cuda"]
    others = [one for one in needed if not one.startswith("onnxruntime")]
    versions = next(one for one in needed if one.startswith(GPU_RUNTIME)).partition(";")[0]
    return [*others, versions.replace(GPU_RUNTIME, "onnxruntime").strip()]


if __name__ == "__main__":
    document = tomllib.loads(Path("pyproject.toml").read_text())
    print("\n".join(requirements(document["project"], sys.argv[1])))  # noqa: T201
