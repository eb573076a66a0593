from __future__ import annotations

import json

import pytest
import torch

from fusebench.benchmarks.suites import SUITES
from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.methods.engine import BATCH_TOKENS
from fusebench.study import plan as planning
from fusebench.study.options import Options
from fusebench.study.plan import choose_device, make_plan
from tests.tiny_models import copy_of, folder_of

PLUGIN = """
import torch
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs


@register("random-head", paper="none", learned=True)
class RandomHead(Fusion):
    needs = Needs.MEANS

    def __init__(self, shape):
        super().__init__()
        self.layers, self.out_dim = (shape.blocks,), shape.dim
        self.head = torch.nn.Linear(shape.dim, shape.dim)

    def forward(self, states):
        return self.head(states.mean(self.layers[0]))
"""


def words(tiny, i):
    return {"sentence1": f"w{i} the cat", "sentence2": f"w{i + 1} a dog", "score": i / 2}


@pytest.fixture
def data(tiny):
    """Two tasks of our own and two of mteb's, in the hub's layout."""
    for name in ("Ours", "Theirs"):
        tiny.write_sts(name, [words(tiny, i + len(name)) for i in range(8)])
    for name in ("BIOSSES", "STS12"):
        tiny.write_sts(name, tiny.pairs(8))
    return tiny.root


@pytest.fixture
def ask(data):
    """A plan on the tiny BERT and the first task of our own, unless told otherwise."""

    def ask(*methods, **settings):
        asked = {"tasks": ("Ours",), "data_dir": data, "backbone": str(folder_of("bert"))}
        if "suites" in settings:
            del asked["tasks"]
        return make_plan(Options(methods=methods, device="cpu", **{**asked, **settings}))

    return ask


@pytest.fixture
def random_head(tmp_path, monkeypatch):
    """A fusion with random weights, known for one test."""
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    (tmp_path / "random_head.py").write_text(PLUGIN)
    registry.load_plugins([tmp_path / "random_head.py"])


def names(plan):
    return [method.name for method in plan.methods]


def test_a_plan_is_methods_times_tasks_in_the_order_asked(ask):
    plan = ask("max", "mean", tasks=("Theirs", "Ours"))
    assert [(cell.method.name, cell.task.spec.name) for cell in plan.cells] == [
        ("max", "Theirs"),
        ("max", "Ours"),
        ("mean", "Theirs"),
        ("mean", "Ours"),
    ]
    assert len({cell.spec.spec_id for cell in plan.cells}) == 4


def test_the_same_method_in_other_words_is_run_once_with_a_note_each(ask):
    plan = ask("mean", "mean(layer=3)", "mean(layer=-1)", "mean", "second-to-last", "mean(layer=2)")
    assert names(plan) == ["mean", "mean(layer=2)"]
    assert plan.notes == ("mean(layer=3) is mean", "mean(layer=-1) is mean", "second-to-last is mean(layer=2)")


def test_repeated_tasks_and_suites_are_run_once(ask):
    plan = ask("mean", tasks=("Ours", "Theirs", "Ours"))
    assert [task.spec.name for task in plan.tasks] == ["Ours", "Theirs"]
    assert [task.spec.name for task in ask("mean", suites=("embedded", "embedded")).tasks] == [
        "LeeSTS",
        "LeeKnownItem",
    ]


def test_the_catalogue_leaves_out_with_a_note_what_the_backbone_cannot_have(ask):
    plan = ask()
    assert len(plan.methods) > 15
    left_out = [note for note in plan.notes if " is left out: " in note]
    assert [note.split(" ")[0] for note in left_out] == ["native", "mean-whitened-256", "bert-whitening"]
    assert all("whiten(k=256)" not in method.name for method in plan.methods)


def test_what_is_asked_for_by_name_is_never_left_out_silently(ask):
    with pytest.raises(InputError, match="k=256"):
        ask("mean", "mean+whiten(k=256)")
    with pytest.raises(InputError, match="layer 9 does not exist"):
        ask("mean(layer=9)")
    with pytest.raises(InputError, match="mask token"):
        ask("prompt-mask", backbone=str(folder_of("gpt2")))


def test_a_backbone_without_a_mask_token_runs_the_rest_of_the_catalogue(ask):
    plan = ask(backbone=str(folder_of("gpt2")))
    assert "prompt-mask is left out: gpt2 has no mask token, so prompt-mask cannot read one." in plan.notes
    assert {"mean", "last-token"} <= set(names(plan))


def test_whitening_refuses_as_many_directions_as_fit_texts(ask, tmp_path):
    (tmp_path / "fit.txt").write_text("a cat\na dog\nthe mat\n")
    assert names(ask("mean+whiten(k=2)", fit=str(tmp_path / "fit.txt"))) == ["mean+whiten(k=2)"]
    with pytest.raises(InputError, match="more than 3 fit texts and has 3"):
        ask("mean+whiten(k=3)", fit=str(tmp_path / "fit.txt"))


def test_fit_texts_are_recorded_only_where_a_transform_learns_from_them(ask, tmp_path):
    (tmp_path / "fit.txt").write_text("a cat\na dog\nthe mat\n")
    plan = ask("mean", "mean+normalize", "mean+whiten(k=2)", fit=str(tmp_path / "fit.txt"))
    assert [cell.spec.fit for cell in plan.cells] == [None, None, plan.fit.spec]
    assert (plan.fit.spec.name, plan.fit.spec.count) == ("fit.txt", 3)
    assert ask("mean").fit is None


def test_only_random_weights_are_run_once_a_seed(ask, random_head):
    plan = ask("mean", "random-head(untrained)", "random-head(untrained)+whiten", seeds=(0, 7))
    assert [(cell.method.name, cell.seed) for cell in plan.cells] == [
        ("mean", None),
        ("random-head(untrained)", 0),
        ("random-head(untrained)", 7),
        ("random-head(untrained)+whiten", 0),
        ("random-head(untrained)+whiten", 7),
    ]


def test_random_weights_are_not_scored_by_accident(ask, random_head):
    with pytest.raises(InputError, match=r"write random-head\(untrained\)"):
        ask("random-head")


def test_all_missing_tasks_are_listed_before_a_backbone_is_looked_for(ask, monkeypatch):
    monkeypatch.setattr(planning, "find_backbone", lambda *a, **k: pytest.fail("work had begun"))
    with pytest.raises(InputError, match="lacks 6 of 8 tasks") as refusal:
        ask("mean", suites=("mteb-sts",))
    missing = [task for task in SUITES["mteb-sts"].tasks if task not in ("BIOSSES", "STS12")]
    assert ", ".join(missing) in str(refusal.value)
    assert "--available-only" in str(refusal.value)


def test_available_only_runs_the_rest_and_keeps_the_whole_suite_in_view(ask):
    plan = ask("mean", suites=("mteb-sts",), available_only=True)
    assert [task.spec.name for task in plan.tasks] == ["STS12", "BIOSSES"]
    assert plan.views[0].tasks == SUITES["mteb-sts"].tasks
    assert plan.notes[0].startswith("left out, because --data-dir lacks them: STS13, STS14")


def test_available_only_with_nothing_available_is_refused(ask, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="lacks 8 of 8 tasks") as refusal:
        ask("mean", suites=("mteb-sts",), available_only=True, data_dir=tmp_path / "nothing")
    assert "--available-only" not in str(refusal.value)


def test_available_only_without_a_data_folder_is_refused(ask):
    with pytest.raises(InputError, match="--data-dir"):
        ask("mean", tasks=("LeeSTS",), data_dir=None, available_only=True)


def test_a_misspelt_task_is_refused_as_such_and_not_listed_as_missing(ask):
    with pytest.raises(InputError, match=r"Did you mean .*'BIOSSES'"):
        ask("mean", tasks=("BIOSES", "STS13"), available_only=True)


def test_tasks_and_suites_give_a_view_each_and_one_of_all(ask):
    plan = ask("mean", suites=("embedded",), tasks=("Ours", "LeeSTS"))
    assert [(view.name, view.tasks) for view in plan.views] == [
        ("embedded", ("LeeSTS", "LeeKnownItem")),
        ("tasks Ours LeeSTS", ("Ours", "LeeSTS")),
        ("embedded + tasks Ours LeeSTS", ("LeeSTS", "LeeKnownItem", "Ours")),
    ]
    assert [view.title for view in ask("mean", tasks=("Ours", "Theirs")).views] == ["Ours, Theirs"]


def test_without_suite_and_tasks_the_embedded_suite_is_run(ask):
    assert [view.name for view in ask("mean", tasks=()).views] == ["embedded"]


def test_a_misspelt_method_is_refused_before_anything_is_loaded(ask, monkeypatch):
    for name in ("find_backbone", "find_tasks", "load_task"):
        monkeypatch.setattr(planning, name, lambda *a, **k: pytest.fail("work had begun"))
    with pytest.raises(InputError, match="Did you mean"):
        ask("mean", "second-to-lst")


def test_a_specification_says_what_was_asked_for(ask):
    spec = ask("mean(layer=1)+normalize", limit=4, max_length=9, dtype="bfloat16").cells[0].spec
    assert (spec.limit, spec.max_length, spec.max_length_source, spec.dtype) == (4, 9, "--max-length", "bfloat16")
    assert (spec.device, spec.batch_tokens, spec.padding_side, spec.seed) == (
        "cpu",
        BATCH_TOKENS["cpu"],
        "right",
        None,
    )
    assert [(part.kind, part.name) for part in spec.method.parts] == [("fusion", "mean"), ("transform", "normalize")]
    assert spec.method.parts[0].params == {"layer": 1}
    assert (spec.backbone.name, spec.backbone.blocks, spec.backbone.dim) == ("bert", 3, 32)
    assert set(spec.software) >= {"torch", "transformers", "tokenizers", "mteb", "numpy", "scipy"}


def test_limits_that_leave_nothing_are_refused(ask):
    for limit in (0, -1, 2):
        with pytest.raises(InputError, match=f"limit of {limit}"):
            ask("mean", limit=limit)


def test_a_stated_length_limit_is_recorded_with_its_source(ask, tmp_path):
    folder = copy_of("bert", tmp_path)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    spec = ask("mean", backbone=str(folder)).cells[0].spec
    assert (spec.max_length, spec.max_length_source) == (12, "sentence_bert_config.json")


def _hardware(monkeypatch, *, gpus, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("gpus", "mps", "chosen"), [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (1, True, "cuda")]
)
def test_auto_takes_the_best_device_there_is(monkeypatch, gpus, mps, chosen):
    _hardware(monkeypatch, gpus=gpus, mps=mps)
    assert choose_device("auto") == chosen


@pytest.mark.parametrize("asked", ["cpu", "cuda", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_is_there_is_taken_as_asked(monkeypatch, asked):
    _hardware(monkeypatch, gpus=2, mps=True)
    assert choose_device(asked) == asked


@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, asked):
    _hardware(monkeypatch, gpus=0, mps=False)
    with pytest.raises(InputError, match="torch sees no such device here"):
        choose_device(asked)


def test_a_gpu_beyond_the_last_is_refused(monkeypatch):
    _hardware(monkeypatch, gpus=2, mps=False)
    with pytest.raises(InputError, match="cuda:2"):
        choose_device("cuda:2")


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "", "CUDA", "mps:0:1"])
def test_a_device_that_torch_does_not_know_is_refused(monkeypatch, asked):
    _hardware(monkeypatch, gpus=2, mps=True)
    with pytest.raises(InputError, match="choose auto, cpu, cuda"):
        choose_device(asked)
