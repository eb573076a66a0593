"""The source files that a fusion needs to run without FuseBench: the project's own, with their imports rewritten."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

from fusebench.errors import InputError
from fusebench.methods.parts import Fusion
from fusebench.study.code_identity import module_file
from fusebench.study.fusion_module import FusionModule

MODELING_FILE, MODULE_CLASS = "modeling_fusebench", "FusedLayers"

# Taken instead of another: an exported model looks no part up by its name.
_INSTEAD = {"fusebench.methods.registry": "fusebench.study.bundled_registry"}
# What can be imported wherever sentence-transformers runs.
_THERE = {*sys.stdlib_module_names, *("torch", "numpy", "scipy", "sklearn", "transformers", "sentence_transformers")}
_PACKAGE = "fusebench.methods"
_SHAPES = "jaxtyping"  # stands in annotations alone

_HEADER = "# Of FuseBench {version} (Apache-2.0); only its imports differ.\n"
_MODELING = '''\
"""The fusion {part} of FuseBench {version} as a module of sentence-transformers, with the sources that it needs."""

# transformers brings along the files that it finds named in this way.
{siblings}
from .{file} import {part}
from .fusion_module import FusionModule


class {module}(FusionModule):
    """The states of all layers to one vector a text."""

    part = {part}
'''


def bundle(part: type[Fusion]) -> dict[str, str]:
    """Texts of the files by name; that of `MODELING_FILE` holds the module's class, `MODULE_CLASS`.

    Raises:
        InputError: if a file imports what an exported model cannot bring along, or takes another's name.
    """
    texts, places = {}, {MODELING_FILE: ""}
    waiting = [part.__module__, FusionModule.__module__]
    while waiting:
        module = waiting.pop()
        name = _name(module)
        if places.setdefault(name, module) != module:
            raise InputError(f"an exported model has two files named {name}.py; rename that of {part.__name__}.")
        if name not in texts:
            texts[name], imported = _rewritten(module)
            waiting.extend(imported)
    version = importlib.metadata.version("fusebench")
    modeling = _MODELING.format(
        part=part.__name__,
        version=version,
        siblings="\n".join(f"from .{name} import __name__ as _{name}" for name in sorted(texts)),
        file=_name(part.__module__),
        module=MODULE_CLASS,
    )
    files = {name: _HEADER.format(version=version) + text for name, text in texts.items()}
    return {f"{name}.py": text for name, text in sorted({**files, MODELING_FILE: modeling}.items())}


def _rewritten(module: str) -> tuple[str, list[str]]:
    """A file's text with files of the project imported as its neighbours, and the modules that these are."""
    text = _file(module).read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines, neighbours = text.splitlines(keepends=True), []
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in sorted(imports, key=lambda node: node.lineno, reverse=True):
        own = _own_modules(node)
        if own:
            written = [ast.unparse(_relative(node, own))]
        elif _roots(node) == [_SHAPES] and _is_lazy(tree):
            written = ["pass"] * (node.col_offset > 0)  # a block must not become empty
        else:
            _require_there(node, module)
            continue
        neighbours += own
        lines[node.lineno - 1 : node.end_lineno] = [f"{' ' * node.col_offset}{line}\n" for line in written]
    return "".join(lines), neighbours


def _own_modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The project's modules that a `from` names."""
    if not isinstance(node, ast.ImportFrom) or node.level or not (node.module or "").startswith("fusebench."):
        return []
    if node.module == _PACKAGE:
        return [_taken(f"{_PACKAGE}.{alias.name}") for alias in node.names]
    return [_taken(str(node.module))]


def _relative(node: ast.Import | ast.ImportFrom, own: list[str]) -> ast.ImportFrom:
    """The same import where all files lie in one folder."""
    if isinstance(node, ast.ImportFrom) and node.module == _PACKAGE:
        pairs = zip(own, node.names, strict=True)
        return ast.ImportFrom(None, [ast.alias(_name(one), alias.asname or alias.name) for one, alias in pairs], 1)
    return ast.ImportFrom(_name(own[0]), node.names, 1)


def _roots(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The packages that an import needs; a neighbour's name begins with a dot."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return ["." * node.level + (node.module or "")] if node.level else [str(node.module).split(".")[0]]


def _is_lazy(tree: ast.Module) -> bool:
    """Whether annotations are never evaluated."""
    futures = (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__")
    return any(alias.name == "annotations" for node in futures for alias in node.names)


def _require_there(node: ast.Import | ast.ImportFrom, module: str) -> None:
    if foreign := [root for root in _roots(node) if root not in _THERE]:
        raise InputError(
            f"{_file(module).name} imports {foreign[0]}, which an exported model cannot bring along; a fusion can be "
            f"exported if its file needs torch and {_PACKAGE} alone, besides {_SHAPES} below `from __future__ import "
            "annotations`."
        )


def _taken(module: str) -> str:
    return _INSTEAD.get(module, module)


def _name(module: str) -> str:
    """Of a module's file in the bundle; that which stands for another has the other's name."""
    replaced = next((one for one, instead in _INSTEAD.items() if instead == module), None)
    stem = replaced.rsplit(".", 1)[-1] if replaced else _file(module).stem
    return re.sub(r"\W", "_", stem, flags=re.ASCII)


def _file(module: str) -> Path:
    file = None if module == "__main__" else module_file(module)  # a script would run where the model is loaded
    if file is None:
        raise InputError(
            f"{module} was not imported from a file, which an exported model could bring along; write the fusion "
            "into a file of its own and name that by --plugin."
        )
    return file
