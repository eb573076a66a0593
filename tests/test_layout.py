"""The import rules of the project, read from the source files themselves."""

import ast
import os
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OF_TOOLS = re.compile(r"\.(?!ci$|github$).*|build|dist|data|__pycache__|.*venv|.*\.egg-info")


def files(*patterns):
    """Files by path from the root of the project."""
    return sorted({path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)})


def all_files():
    """Every file of the project; folders of tools, environments, builds and data are left out."""
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if not OF_TOOLS.fullmatch(name)]
        yield from (Path(folder, name).relative_to(ROOT) for name in names)


@cache
def tree(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports_of(module):
    """Full names of the modules that a syntax tree imports anywhere, `from a import b` as both `a` and `a.b`."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path, fusebench.…"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imports(path):
    return imports_of(tree(path))


def reaches(names, package):
    """Whether one of the names is the package or lies in it."""
    return any(name == package or name.startswith(f"{package}.") for name in names)


def registers(path):
    """Whether a class of the file carries `@register(...)`."""
    calls = (
        d.func
        for c in ast.walk(tree(path))
        if isinstance(c, ast.ClassDef)
        for d in c.decorator_list
        if isinstance(d, ast.Call)
    )
    return any(isinstance(call, ast.Name) and call.id == "register" for call in calls)


METHODS = files("methods/*.py")
SOURCES = files("*.py", "methods/*.py", "benchmarks/*.py", "study/*.py", "testing/*.py")
PARTS = [path.stem for path in METHODS if registers(path)]
FOUNDATION = {
    "functional": set(),
    "onednn_linear": set(),
    "states": {"functional"},
    "parts": {"functional", "states"},
    "registry": {"functional", "states", "parts"},
    "spelling": {"functional", "states", "parts", "registry"},
    "grammar": {"functional", "onednn_linear", "states", "parts", "registry", "spelling"},
}
# What a part file may know besides: a file of its own that registers nothing.
BUILT_ON = {"samplers": {"shuffling"}, "hire": {"bidirectional_gru"}}
ABOVE = ["backbone", "engine", "encoder", "training"]  # each may know those before it


def methods_imported(path):
    """Names of the files of `methods` that a file imports."""
    stems = {other.stem for other in METHODS}
    return {stem for stem in stems if reaches(imports(path), f"fusebench.methods.{stem}")}


def test_the_files_that_the_rules_speak_of_are_there():
    stems = {path.stem for path in METHODS}
    assert set(FOUNDATION) <= stems
    assert {"token_pooling", "layer_mix", "sbert_wk", "whitening", "attention_guides"} <= set(PARTS)
    assert files("benchmarks/*.py")
    assert files("study/*.py")


@pytest.mark.parametrize(("name", "allowed"), FOUNDATION.items(), ids=FOUNDATION)
def test_the_foundation_is_laid_from_below(name, allowed):
    assert methods_imported(Path(f"methods/{name}.py")) <= allowed


@pytest.mark.parametrize("name", PARTS)
def test_a_part_file_knows_the_foundation_and_no_other_part(name):
    allowed = FOUNDATION["spelling"] | BUILT_ON.get(name, set())
    assert methods_imported(Path(f"methods/{name}.py")) <= allowed
    assert not set(PARTS) & allowed


@pytest.mark.parametrize("name", [name for name in ABOVE if Path(ROOT, "methods", f"{name}.py").is_file()])
def test_backbone_engine_encoder_and_training_know_only_what_is_below_them(name):
    forbidden = set(ABOVE[ABOVE.index(name) :]) | set(PARTS)
    assert not methods_imported(Path(f"methods/{name}.py")) & forbidden


@pytest.mark.parametrize("path", files("benchmarks/*.py"), ids=str)
def test_benchmarks_know_neither_methods_nor_study_nor_torch(path):
    names = imports(path)
    for package in ("fusebench.methods", "fusebench.study", "fusebench.run_bench", "torch", "transformers"):
        assert not reaches(names, package), f"{path} imports {package}"


@pytest.mark.parametrize("path", METHODS, ids=str)
def test_methods_know_neither_benchmarks_nor_study(path):
    names = imports(path)
    for package in ("fusebench.benchmarks", "fusebench.study", "fusebench.run_bench", "mteb", "datasets"):
        assert not reaches(names, package), f"{path} imports {package}"


def test_only_study_and_the_command_line_know_both_methods_and_benchmarks():
    both = [
        path
        for path in SOURCES
        if reaches(imports(path), "fusebench.methods") and reaches(imports(path), "fusebench.benchmarks")
    ]
    assert [path for path in both if path.parts[0] not in ("study", "run_bench.py")] == []
    assert both  # the rule would be idle without a file that it lets through


def test_only_the_command_line_and_the_public_api_know_study():
    knowing = {path.as_posix() for path in SOURCES if reaches(imports(path), "fusebench.study")}
    assert {path for path in knowing if not path.startswith("study/")} <= {"run_bench.py", "__init__.py"}


def test_importing_any_file_by_two_names_is_impossible():
    """`import methods` would make a second registry beside that of `fusebench.methods`."""
    for path in [*SOURCES, *files("tests/*.py", "scripts/*.py")]:
        for package in ("methods", "benchmarks", "study", "errors", "testing"):
            assert not reaches(imports(path), package), f"{path} imports {package}"


@pytest.mark.parametrize("path", [*SOURCES, *files("scripts/*.py", "examples/*.py")], ids=str)
def test_every_source_file_opens_with_a_docstring(path):
    assert (ast.get_docstring(tree(path)) or "").strip()


TEXTS = {"", ".py", ".md", ".toml", ".txt", ".json", ".csv", ".yml", ".yaml", ".sh", ".html", ".tex"}
SOMEBODYS = re.compile(r"(?<![\w.~/-])/(?:home|Users)/(?!someone\b)\w|(?<![\w.~/-])/root\b")


def test_no_file_holds_a_path_of_somebodys_machine():
    looked_at = 0
    for path in all_files():
        if path.suffix in TEXTS and path.name != Path(__file__).name:
            found = SOMEBODYS.search((ROOT / path).read_text(encoding="utf-8", errors="replace"))
            assert found is None, f"{path} holds the path {found.group()}"
            looked_at += 1
    assert looked_at > len(SOURCES)


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("'/home/ann/x'", True),
        ("/root", True),
        ("https://a.b/home/c", False),
        ("/roots", False),
        ("~/home/ann", False),
        ("a/home/b", False),
        ("/Users/bob", True),
    ],
)
def test_the_rule_about_paths_tells_machines_from_words(text, caught):
    assert (SOMEBODYS.search(text) is not None) == caught


def test_the_rules_see_every_form_of_import():
    source = "import torch.nn\ndef f():\n    from fusebench import methods\n    import mteb as m"
    names = imports_of(ast.parse(source))
    assert all(reaches(names, package) for package in ("torch", "fusebench.methods", "mteb"))
    assert not reaches(names, "fusebench.method")
