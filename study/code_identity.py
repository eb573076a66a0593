"""Which source files compute a score, and their hash: a changed file makes an old score unusable."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Iterable
from pathlib import Path

from fusebench.errors import InputError
from fusebench.methods.registry import cards

# What every cell goes through, whatever its method.
_COMMON = (
    "fusebench.methods.encoder",
    "fusebench.methods.engine",
    "fusebench.methods.backbone",
    "fusebench.methods.grammar",
    "fusebench.benchmarks.tasks",
    "fusebench.benchmarks.mteb_bridge",
)

# Put prompts, rows and seeds where they belong; counted without their imports, which plan and display.
_CONDUCTOR = "fusebench.study.run"
_TRAINERS = (
    "fusebench.study.train",
    "fusebench.study.training_texts",
    "fusebench.study.fine_tuning",
    "fusebench.study.rank",
)


def code_sha256(modules: Iterable[str]) -> str:
    """Hash over the sources of what every cell goes through, of these modules, and of project modules they import.

    Args:
        modules: where a cell's parts are defined; a plugin's module counts with its own file alone.
    """
    return _hash({*closure((*_COMMON, *modules)), _CONDUCTOR})


def training_code_sha256(modules: Iterable[str]) -> str:
    """The same over the sources of the training loop and of these modules; how vectors are judged does not matter."""
    return _hash({*closure(("fusebench.methods.training", *modules)), *_TRAINERS})


def _hash(files: Iterable[str]) -> str:
    # A plugin's module is named after where its file lies, which is nobody's business.
    named = sorted((name if name.startswith("fusebench.") else "plugin", _source(name)) for name in files)
    lines = "".join(f"{name}\0{digest}\n" for name, digest in named)
    return hashlib.sha256(lines.encode()).hexdigest()


def closure(modules: Iterable[str]) -> set[str]:
    """These modules and every module of the project that they import, directly or not."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_imports(name))
    return found


def _imports(module: str) -> tuple[str, ...]:
    return _imported(_content(module))


@functools.cache
def _imported(source: bytes) -> tuple[str, ...]:
    tree = ast.parse(source)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    # The packages' own files import all parts there are; what matters is which of them a cell uses.
    return tuple(sorted(name for name in names if name.count(".") >= 2 and _is_module(name)))


@functools.cache
def _is_module(name: str) -> bool:
    if not name.startswith("fusebench."):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _content(module: str) -> bytes:
    file = module_file(module)
    return _typed(module) if file is None else _read(file)


@functools.cache
def _read(file: Path) -> bytes:
    return file.read_bytes()


def module_file(module: str) -> Path | None:
    """Where a module lies; None for what was typed, in a notebook or at a prompt."""
    loaded = sys.modules.get(module)
    spec = loaded.__spec__ if loaded else importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin)
    script = getattr(loaded, "__file__", None)  # of what Python was started with
    return None if script is None else Path(script)


def _typed(module: str) -> bytes:
    """The cells in which the module's parts were typed, whole; other cells, also such as these call, do not count.

    Raises:
        InputError: if Python does not remember them.
    """
    parts = [card.part for card in cards() if card.part.__module__ == module]
    functions = [function for part in parts for function in vars(part).values() if inspect.isfunction(function)]
    names = {function.__code__.co_filename for function in functions if function.__module__ == module}
    cells = sorted(text for name in names if (text := "".join(linecache.getlines(name))))
    if not cells:
        written = ", ".join(part.__name__ for part in parts) or module
        raise InputError(
            f"the source of {written} cannot be found, so a changed one could not be told from it; write it into a "
            "file and name that by --plugin."
        )
    return "\0".join(cells).encode()


def _source(module: str) -> str:
    return hashlib.sha256(_content(module)).hexdigest()
