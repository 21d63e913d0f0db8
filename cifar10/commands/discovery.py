"""Find the names and one-line summaries of all commands without importing them.

Commands are registered as entry points in the group ``cifar10.commands``. A value
``package.module:command`` is one command. A value ``package.room``, without a colon, is a group:
each file of that folder that defines ``command`` is a command of the group, named after the file.
So a new command needs only a new file. The first line of a module's docstring is its summary.

In a checkout the entry points are read from ``pyproject.toml``, because those recorded by an
earlier ``pip install`` may be out of date.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from cifar10.environment import PROJECT_ROOT

DISTRIBUTION: Final = "cifar10-efficiency"
ENTRY_POINTS: Final = "cifar10.commands"

_DEFINES_COMMAND: Final = re.compile(r"^(def command\(|command\b[^=\n]*= )", re.MULTILINE)
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_EXTRA: Final = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")
_MODULES_OF: Final = {
    "mlflow_skinny": "mlflow",
    "nvidia_ml_py": "pynvml",
    "opentelemetry_exporter_otlp_proto_http": "",
}
"""Distribution → name of its module, where the two differ."""


def top_level() -> dict[str, str]:
    """Return name → place (``package.module:command`` or ``package.room``) of all commands."""
    found = {
        point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)
    }
    own: dict[str, str] = checkout().get("entry-points", {}).get(ENTRY_POINTS, {})
    if own:
        packages = {value.partition(".")[0] for value in own.values()}
        found = {name: at for name, at in found.items() if at.partition(".")[0] not in packages}
    return found | own


def room(package: str) -> dict[str, str]:
    """Return the commands in the folder of ``package``: name → ``package.module:command``."""
    folder = _source(package).parent
    return {
        path.stem: f"{package}.{path.stem}:command"
        for path in sorted(folder.glob("*.py"))
        if _DEFINES_COMMAND.search(path.read_text(encoding="utf-8"))
    }


def summary(place: str) -> str:
    """Return the first line of the docstring of the module at ``place``, without importing it."""
    try:
        tree = ast.parse(_source(place.partition(":")[0]).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return ""
    return (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")


def load(place: str) -> Any:
    """Import and return the object that ``package.module:attribute`` names."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def version() -> str:
    """Return the version of this project."""
    own = checkout().get("version")
    if own is not None:
        return str(own)
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def install_command(module: str) -> str | None:
    """Return the ``pip install`` command for the missing ``module``; None if it is not one of our
    dependencies."""
    extra = _extra_with(module.partition(".")[0].lower())
    return None if extra is None else install_command_of(extra)


def install_command_of(extra: str) -> str:
    """Return the ``pip install`` command for an extra; an empty one is the base install."""
    brackets = f"[{extra}]" if extra else ""
    if checkout():  # pinned, so that it is the versions that were tested
        return f"pip install -c constraints.txt -e '.{brackets}'"
    return f"pip install '{DISTRIBUTION}{brackets}'"


def checkout() -> dict[str, Any]:
    """Return ``[project]`` of the ``pyproject.toml`` beside this package; empty when installed."""
    try:
        text = (PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
        project: dict[str, Any] = tomllib.loads(text).get("project", {})
    except (OSError, tomllib.TOMLDecodeError):
        return {}
    return project if project.get("name") == DISTRIBUTION else {}


def requirements() -> list[tuple[str, str]]:
    """Return (distribution, extra) of every requirement; the base install's extra is empty."""
    own = checkout()
    if own:
        extras: dict[str, list[str]] = {"": own.get("dependencies", [])}
        extras |= own.get("optional-dependencies", {})
        lines = [(line, extra) for extra, of_it in extras.items() for line in of_it]
    else:
        try:
            written = importlib.metadata.requires(DISTRIBUTION) or []
        except importlib.metadata.PackageNotFoundError:
            written = []
        lines = [(line, extra[1] if (extra := _EXTRA.search(line)) else "") for line in written]
    return [(name[0], extra) for line, extra in lines if (name := _NAME.match(line))]


def _extra_with(module: str) -> str | None:
    for name, extra in requirements():
        normal = name.lower().replace("-", "_")
        if module == _MODULES_OF.get(normal, normal):
            return extra
    return None


def _source(module: str) -> Path:
    """Return the source file of ``module`` (``__init__.py`` for a package) without importing it."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        message = f"there is no package {top!r}"
        raise FileNotFoundError(message)
    path = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
