"""Tasks of third parties are found by name, judged by mteb, and known apart by their code and data."""

from __future__ import annotations

import pytest

from fusebench.benchmarks import own_tasks
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.tasks import available_tasks, find_tasks, load_task
from fusebench.errors import InputError
from fusebench.methods.registry import load_plugins
from fusebench.run_bench import main
from tests.tiny_models import folder_of

PLUGIN = """
from datasets import Dataset
from mteb.abstasks import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

from fusebench.benchmarks.own_tasks import register_task


@register_task
class Mine(AbsTaskSTS):
    min_score, max_score = 0, 1
    metadata = TaskMetadata(
        name="{name}",
        description="Pairs that share a word.",
        dataset={{"path": "none", "revision": "1"}},
        type="STS",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="cosine_spearman",
    )

    def load_data(self, num_proc=None, **kwargs):
        pairs = [(f"w{{i}} the cat", f"w{{i}} " * (1 + i % 3) + "a dog", i % 5 / 4) for i in range(12)]
        columns = dict(zip(("sentence1", "sentence2", "score"), map(list, zip(*pairs))))
        self.dataset = {{"default": {{"test": Dataset.from_dict(columns)}}}}
        self.data_loaded = True
"""


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(own_tasks, "_TASKS", {})
    own_tasks._load_installed.cache_clear()
    yield
    own_tasks._load_installed.cache_clear()


def plugin(folder, name="MineSTS", text=PLUGIN):
    file = folder / f"{name}.py"
    file.write_text(text.format(name=name))
    return file


def test_a_task_of_a_plugin_file_runs_by_its_name_like_any_other(tmp_path, capsys):
    file = plugin(tmp_path)
    words = ["--methods", "mean,cls", "--tasks", "MineSTS", "--plugin", file, "--backbone", folder_of("bert")]
    assert main([str(word) for word in (*words, "--out", tmp_path / "out", "--device", "cpu", "--no-test")]) == 0
    records = Store(tmp_path / "out").records()
    assert {(record.spec.method.name, record.spec.task.name) for record in records} == {
        ("mean", "MineSTS"),
        ("cls", "MineSTS"),
    }
    assert records[0].spec.task.source == "plugin"
    assert len({record.main_score for record in records}) == 2
    assert "MineSTS" in capsys.readouterr().out


def test_another_text_of_the_plugin_is_another_task(tmp_path, monkeypatch):
    specs = []
    for number, text in enumerate([PLUGIN, PLUGIN + "# changed\n", PLUGIN.replace("% 3", "% 4")]):
        monkeypatch.setattr(own_tasks, "_TASKS", {})
        (tmp_path / str(number)).mkdir()
        load_plugins([plugin(tmp_path / str(number), text=text)])
        (source,) = find_tasks(["MineSTS"], None)
        specs.append(load_task(source, limit=None, allow_empty=False).spec)
    assert len({spec.protocol for spec in specs}) == 3
    assert [spec.data_sha256 == specs[0].data_sha256 for spec in specs] == [True, True, False]


def test_tasks_of_an_installed_package_are_found_by_their_entry_point(tmp_path, monkeypatch):
    plugin(tmp_path, "packaged_sts")
    described = tmp_path / "packaged-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[fusebench.tasks]\nall = packaged_sts\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_tasks(["packaged_sts"], None)[0].source == "plugin"
    assert "packaged_sts" in available_tasks()
    (described / "entry_points.txt").write_text("[fusebench.tasks]\nall = packaged_nowhere\n")
    own_tasks._load_installed.cache_clear()
    with pytest.raises(InputError, match="tasks all = packaged_nowhere cannot be imported"):
        find_tasks(["packaged_sts"], None)


def test_a_name_is_taken_once(tmp_path):
    load_plugins([plugin(tmp_path)])
    (tmp_path / "again").mkdir()
    with pytest.raises(InputError, match="a task named 'MineSTS' is already registered"):
        load_plugins([plugin(tmp_path / "again")])
    load_plugins([plugin(tmp_path, "STS12")])
    with pytest.raises(InputError, match="has the name of one of mteb's: give it another"):
        find_tasks(["STS12"], None)


def test_a_plugin_that_cannot_load_its_data_is_one_sentence(tmp_path):
    load_plugins([plugin(tmp_path, "Broken", PLUGIN.replace("pairs = [", "pairs = 1 / 0 or ["))])
    (source,) = find_tasks(["Broken"], None)
    with pytest.raises(InputError, match=r"task Broken: its plugin cannot load its data \(division by zero\)"):
        load_task(source, limit=None, allow_empty=False)


def test_a_task_with_mtebs_own_loading_must_pin_its_data(tmp_path):
    text = PLUGIN[: PLUGIN.index("    def load_data")]
    load_plugins([plugin(tmp_path, "Unpinned", text)])
    with pytest.raises(InputError, match="has no pinned data revision"):
        find_tasks(["Unpinned"], None)
