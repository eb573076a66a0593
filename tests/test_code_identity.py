from __future__ import annotations

import linecache
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import fusebench.methods
from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.methods.grammar import parse
from fusebench.methods.states import StateShape
from fusebench.study import code_identity
from fusebench.study.code_identity import closure, code_sha256

_ = fusebench.methods
ROOT = Path(__file__).resolve().parents[1]
PARTS = {card.part.__module__ for card in registry.cards() if card.part.__module__.startswith("fusebench.methods.")}


def modules_of(sentence):
    return tuple(part.card.part.__module__ for part in parse(sentence).parts)


def clear():
    for cached in (code_identity._imported, code_identity._is_module, code_identity._read):
        cached.cache_clear()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the sources that the hash reads in the place of the real ones, to be changed."""
    for name in ("methods", "benchmarks", "study"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    clear()
    monkeypatch.setattr(
        code_identity, "module_file", lambda module: tmp_path.joinpath(*module.split(".")[1:]).with_suffix(".py")
    )
    yield tmp_path
    monkeypatch.undo()
    clear()


def test_the_closure_holds_what_every_score_goes_through():
    found = closure(code_identity._COMMON)
    assert {
        "fusebench.methods.engine",
        "fusebench.methods.backbone",
        "fusebench.methods.batching",
        "fusebench.methods.functional",
        "fusebench.methods.states",
        "fusebench.methods.parts",
        "fusebench.methods.encoder",
        "fusebench.benchmarks.tasks",
        "fusebench.benchmarks.task_data",
        "fusebench.benchmarks.embedded",
        "fusebench.benchmarks.hub_layout",
        "fusebench.benchmarks.mteb_bridge",
    } <= found


def test_the_closure_holds_no_part_that_the_method_does_not_use():
    used = set(modules_of("mean+whiten"))
    found = closure((*code_identity._COMMON, *used))
    assert found & PARTS == used == {"fusebench.methods.token_pooling", "fusebench.methods.whitening"}


@pytest.mark.parametrize("module", ["leaderboard", "board_rows", "board_files", "scores_table", "suites", "store"])
def test_the_closure_holds_nothing_that_only_shows_scores(module):
    assert f"fusebench.benchmarks.{module}" not in closure((*code_identity._COMMON, *modules_of("mean+whiten")))


@pytest.mark.parametrize(
    "file",
    [
        "methods/engine.py",
        "methods/backbone.py",
        "methods/functional.py",
        "methods/token_pooling.py",
        "methods/whitening.py",
        "benchmarks/mteb_bridge.py",
        "benchmarks/task_data.py",
        "study/run.py",
    ],
)
def test_a_change_in_what_computes_a_score_changes_the_hash(copy, file):
    before = code_sha256(modules_of("mean+whiten"))
    with (copy / file).open("a") as source:
        source.write("# changed\n")
    clear()
    assert code_sha256(modules_of("mean+whiten")) != before


@pytest.mark.parametrize(
    "file",
    [
        "methods/sbert_wk.py",
        "methods/layer_mix.py",
        "benchmarks/leaderboard.py",
        "benchmarks/store.py",
        "study/catalogue.py",
        "study/display.py",
        "study/plan.py",
        "methods/__init__.py",
    ],
)
def test_a_change_elsewhere_leaves_the_hash(copy, file):
    before = code_sha256(modules_of("mean+whiten"))
    with (copy / file).open("a") as source:
        source.write("# changed\n")
    clear()
    assert code_sha256(modules_of("mean+whiten")) == before


def test_a_module_that_is_newly_imported_counts(copy):
    before = code_sha256(modules_of("mean"))
    engine = copy / "methods" / "engine.py"
    engine.write_text(engine.read_text() + "\nfrom fusebench.methods import sbert_wk\n")
    clear()
    with_import = code_sha256(modules_of("mean"))
    with (copy / "methods" / "sbert_wk.py").open("a") as source:
        source.write("# changed\n")
    clear()
    assert len({before, with_import, code_sha256(modules_of("mean"))}) == 3


def test_methods_of_other_modules_have_other_hashes():
    assert code_sha256(modules_of("mean")) == code_sha256(modules_of("max"))
    assert code_sha256(modules_of("mean")) != code_sha256(modules_of("mean+whiten"))


PLUGIN = """
import torch
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs


@register("identity-probe", paper="none")
class Probe(Fusion):
    needs = Needs.MEANS

    def __init__(self, shape):
        super().__init__()
        self.layers, self.out_dim = (shape.blocks,), shape.dim

    def forward(self, states):
        return states.mean(self.layers[0])
"""


def test_a_plugin_counts_by_its_content_and_not_by_its_place(tmp_path, monkeypatch):
    def hash_of(place, content):
        monkeypatch.setattr(registry, "_CARDS", dict(known))
        (tmp_path / place).mkdir()
        (tmp_path / place / "probe.py").write_text(content)
        registry.load_plugins([tmp_path / place / "probe.py"])
        return code_sha256(modules_of("identity-probe"))

    known = dict(registry._CARDS)
    here = hash_of("here", PLUGIN)
    assert hash_of("there", PLUGIN) == here
    assert hash_of("changed", PLUGIN + "# changed\n") != here
    assert here != code_sha256(modules_of("mean"))


# ---- parts that are written in a script, a notebook or at a prompt

ASK = """
from fusebench.study.code_identity import code_sha256
print(code_sha256(["__main__"]))
"""


def hash_of_script(tmp_path, content):
    script = tmp_path / "script.py"
    script.write_text(content + ASK)
    done = subprocess.run([sys.executable, script], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def test_a_part_of_a_script_counts_by_the_script(tmp_path):
    first = hash_of_script(tmp_path, PLUGIN)
    assert len(first) == 64
    assert hash_of_script(tmp_path, PLUGIN) == first
    assert hash_of_script(tmp_path, PLUGIN + "SIZE = 3\n") != first


@pytest.fixture
def typed(monkeypatch):
    """Runs a cell as IPython does: under a name of its own, with its source remembered."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))

    def run(cell, *, remembered=True):
        name = f"<cell {len(linecache.cache)} of {len(cell)}>"
        if remembered:
            monkeypatch.setitem(linecache.cache, name, (len(cell), None, cell.splitlines(keepends=True), name))
        exec(compile(cell, name, "exec"), vars(main))
        return code_sha256(modules_of("identity-probe"))

    return run


def test_a_part_of_a_notebook_counts_by_its_cell_and_may_be_written_anew(typed):
    first = typed(PLUGIN)
    typed("other = 1\n")
    assert typed(PLUGIN) == first
    changed = PLUGIN.replace("shape.blocks,)", "shape.blocks - 1,)")
    assert typed(changed) != first
    assert parse("identity-probe").build_fusion(StateShape(3, 4)).layers == (2,)


def test_a_part_whose_source_nobody_remembers_is_refused_with_a_way_out(typed):
    with pytest.raises(InputError, match=r"source of Probe cannot be found, .* name that by --plugin\."):
        typed(PLUGIN, remembered=False)
