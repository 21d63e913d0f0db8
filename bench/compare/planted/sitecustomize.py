"""A planted regression: every image that a model runs on takes PLANTED_DELAY_US more of CPU time.

Python imports a module of this name by itself where its folder is on PYTHONPATH. So a server that
its ordinary command starts is slowed, all its workers included. Only :mod:`bench.compare.selftest`
uses it.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_DELAY_S = float(os.environ.get("PLANTED_DELAY_US", "0")) / 1e6
_TARGET = "cifar10.predictor"


class _SlowedLoader(importlib.abc.Loader):
    """Loads the module as usual, then slows ``Predictor.predict``."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        predict = module.Predictor.predict

        def slowed(predictor: Any, images: Any) -> Any:
            answers = predict(predictor, images)
            until = time.thread_time() + _DELAY_S * len(images)
            while time.thread_time() < until:
                pass
            return answers

        module.Predictor.predict = slowed


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _SlowedLoader(spec.loader)
        return spec


if _DELAY_S > 0:
    sys.meta_path.insert(0, _Finder())
