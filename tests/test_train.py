"""Training as a user asks for it: what is refused, what is trained once, what comes back from disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fusebench
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import find_backbone
from fusebench.methods.recipe import Recipe
from fusebench.methods.trainee import Trainee
from fusebench.methods.training import TrainingLoop
from fusebench.study.options import Options, TrainingOptions
from fusebench.study.plan import make_plan
from fusebench.study.run import run
from tests.conftest import TinyData
from tests.tiny_models import save

TOPICS = ["cat sat on mat", "dog on the cat", "w1 w2 of w3", "w4 means w5", "w6 dogs w7", "w8 w9 the w10 mat"]
GOLD = [0.7, 4.7, 2.7, 1.7, 3.7, 0.8, 2.9, 4.0, 1.2, 3.3]
PAIRS = [
    {"sentence1": f"the {TOPICS[i % 6]} w{i}", "sentence2": f"a {TOPICS[(i * i + 1) % 6]} w{i + 12}", "score": gold}
    for i, gold in enumerate(GOLD)
]
TRAIN = [(f"cat w{i} on {TOPICS[i % 6]}", f"dog w{i} of {TOPICS[(i + 1) % 6]}") for i in range(12)]
SHORT = TrainingOptions(data=("rows.tsv",), recipe=Recipe(steps=3, batch_size=4))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a tiny BERT, two tasks and training rows."""
    root = tmp_path_factory.mktemp("training")
    save("bert", root / "tiny-bert")
    tiny = TinyData(root / "data")
    tiny.write_sts("TinySTS", PAIRS)
    tiny.write_sts("OtherSTS", [{**pair, "score": 5 - pair["score"] ** 0.9} for pair in PAIRS])
    rows = "\n".join("\t".join(pair) for pair in TRAIN)
    (root / "rows.tsv").write_text("anchor\tpositive\n" + rows + "\n")
    (root / "leak.tsv").write_text(f"anchor\tpositive\n{PAIRS[0]['sentence2']}\t{PAIRS[0]['sentence1']}\n{rows}\n")
    dev = "\n".join(f"{a}\t{b}\t{n % 4}" for n, (a, b) in enumerate(TRAIN))
    (root / "dev.tsv").write_text("sentence1\tsentence2\tscore\n" + dev + "\n")
    return root


@pytest.fixture
def ask(world, tmp_path, monkeypatch):
    """Options for methods; `training` are fields of its options."""
    monkeypatch.chdir(world)

    def ask(*methods, tasks=("TinySTS",), seeds=(0,), **training):
        return Options(
            methods=methods,
            backbone=str(world / "tiny-bert"),
            tasks=tasks,
            data_dir=world / "data",
            device="cpu",
            seeds=seeds,
            out=tmp_path / "out",
            training=replace(SHORT, **training),
        )

    return ask


def names(plan):
    return [method.name for method in plan.methods]


def score(options):
    """Main scores by method, task and seed, and what the run did."""
    store = Store(options.out)
    outcome = run(make_plan(options), store)
    held = {(r.spec.method.name, r.spec.task.name, r.spec.seed): r for r in store.records()}
    return held, outcome


# What is refused


def test_a_guide_on_a_frozen_backbone_is_refused_with_the_reason(ask):
    with pytest.raises(
        InputError, match=r"acts on the attention of the backbone, which --regime frozen never changes"
    ):
        make_plan(ask("mean+info-nce+pdg"))


def test_a_fusion_without_weights_has_nothing_to_train_on_a_frozen_backbone(ask):
    with pytest.raises(InputError, match=r"mean has no weights.*finetune, or mlp"):
        make_plan(ask("mean+info-nce"))
    assert names(make_plan(ask("mean+info-nce", regime="finetune"))) == ["mean+info-nce"]


def test_rows_of_no_kind_that_the_objective_reads_are_refused_by_name_and_left_out_of_the_catalogue(ask):
    with pytest.raises(InputError, match="cosent"):
        make_plan(ask("mlp+cosent"))
    plan = make_plan(ask("all", regime="finetune"))
    assert "mean+cosent" not in names(plan)
    assert any("mean+cosent is left out" in note for note in plan.notes)


def test_trials_need_dev_rows(ask):
    with pytest.raises(InputError, match="--dev"):
        make_plan(ask("mlp", trials=2))


def test_a_training_pair_that_is_a_test_pair_is_refused_or_left_out(ask):
    with pytest.raises(InputError, match="--drop-leaks"):
        make_plan(ask("mlp", data=("leak.tsv",)))
    plan = make_plan(ask("mlp", data=("leak.tsv",), drop_leaks=True))
    (training,) = plan.training.methods.values()
    assert training.spec.rows[0].count == len(TRAIN)


def test_training_without_overlap_leaves_scores_without_nothing(ask):
    held, _ = score(ask("mlp"))
    overlap = held["mlp+batch-softmax", "TinySTS", 0].overlap
    assert (overlap.known_texts, overlap.main_score_without) == (0, None)


# What is planned


def test_a_learned_fusion_gets_the_objective_of_the_catalogue(ask):
    plan = make_plan(ask("hire", "scalar-mix"))
    assert names(plan) == ["hire+batch-softmax", "scalar-mix+batch-softmax"]
    assert "hire is hire+batch-softmax" in plan.notes


def test_a_guided_method_brings_its_twin_without_guides(ask):
    plan = make_plan(ask("mean+info-nce+pdg", regime="finetune"))
    assert names(plan) == ["mean+info-nce", "mean+info-nce+pdg"]
    assert any("mean+info-nce is added" in note for note in plan.notes)
    both = make_plan(ask("mean+info-nce+pdg", "mean+info-nce", regime="finetune"))
    assert names(both) == ["mean+info-nce", "mean+info-nce+pdg"]


def test_budget_seed_and_rows_make_another_training_and_a_task_or_a_transform_does_not(ask):
    def identity(options, task=0):
        return make_plan(options).cells[task].spec.training_id

    base = identity(ask("mlp"))
    assert identity(ask("mlp", tasks=("TinySTS", "OtherSTS")), task=1) == base
    assert identity(ask("mlp+batch-softmax+normalize")) == base
    others = [
        ask("mlp", seeds=(1,)),
        ask("mlp", recipe=Recipe(steps=4, batch_size=4)),
        ask("mlp", recipe=Recipe(steps=3, batch_size=4, learning_rate_new=1e-2)),
        ask("mlp", limit=8),
        ask("mlp+info-nce"),
        ask("mlp", regime="finetune"),
    ]
    assert len({base, *map(identity, others)}) == 1 + len(others)


# What is trained, kept and taken again


def test_weights_are_trained_once_for_all_tasks_and_transforms(ask, monkeypatch):
    first, outcome = score(ask("mlp", "hire"))
    assert outcome.failures == []
    assert {name for name, *_ in first} == {"mlp+batch-softmax", "hire+batch-softmax"}

    def never(self):
        raise AssertionError("trained again")

    monkeypatch.setattr(TrainingLoop, "run", never)
    again, outcome = score(ask("mlp", "hire", "mlp+batch-softmax+normalize", tasks=("TinySTS", "OtherSTS")))
    assert outcome.failures == []
    assert outcome.kept == 2
    training = first["mlp+batch-softmax", "TinySTS", 0].training
    assert again["mlp+batch-softmax", "OtherSTS", 0].training == training
    assert (training.updates, training.examples, training.states) == (3, 12, "pooled states")
    assert again["hire+batch-softmax", "TinySTS", 0].training.states == "cached token states"
    assert again["mlp+batch-softmax+normalize", "TinySTS", 0].main_score == pytest.approx(
        again["mlp+batch-softmax", "TinySTS", 0].main_score, abs=1e-6
    )


def test_seeds_differ_and_the_same_seed_repeats(ask, tmp_path):
    held, _ = score(ask("mlp", seeds=(0, 1)))
    again, _ = score(replace(ask("mlp", seeds=(1,)), out=tmp_path / "again"))
    one, two = (held["mlp+batch-softmax", "TinySTS", seed] for seed in (0, 1))
    assert one.main_score != two.main_score
    assert again["mlp+batch-softmax", "TinySTS", 1].main_score == two.main_score


def test_frozen_token_states_that_do_not_fit_are_read_live_with_the_same_result(ask, tmp_path):
    held, _ = score(ask("bigru"))
    live, _ = score(replace(ask("bigru", state_cache_gb=0.0), out=tmp_path / "live"))
    one, two = (found["bigru+batch-softmax", "TinySTS", 0] for found in (held, live))
    assert (one.training.states, two.training.states) == ("cached token states", "live states")
    assert one.main_score == pytest.approx(two.main_score, abs=1e-5)


@pytest.mark.parametrize("regime", ["frozen", "finetune"])
def test_a_saved_method_scores_as_when_it_was_trained(regime, ask, world):
    options = ask("layer-attention+info-nce", regime=regime)
    held, _ = score(options)
    trained = held["layer-attention+info-nce", "TinySTS", 0]
    (folder,) = (options.out / "trained").iterdir()
    _, outcome = score(ask(str(folder), f"{folder}+normalize", "mean"))
    assert outcome.failures == []
    saved, normed = (r for r in Store(options.out).records() if r.spec.weights_sha256)
    assert (normed.spec.method.name, normed.main_score) == (
        "layer-attention+info-nce+normalize",
        pytest.approx(trained.main_score, abs=1e-6),
    )
    assert saved.main_score == pytest.approx(trained.main_score, abs=1e-6)
    assert (saved.spec.regime, saved.spec.seed, saved.spec.train) == (regime, 0, trained.spec.train)
    encoder = fusebench.load(str(folder), backbone=str(world / "tiny-bert"), device="cpu")
    plain = fusebench.load("mean", backbone=str(world / "tiny-bert"), device="cpu")
    texts = ["the cat sat", "a dog"]
    assert encoder.encode(texts).shape == plain.encode(texts).shape
    assert not np.allclose(encoder.encode(texts), plain.encode(texts))


def test_a_saved_method_of_another_backbone_is_refused(ask, world, tmp_path):
    options = ask("mlp")
    score(options)
    (folder,) = (options.out / "trained").iterdir()
    save("roberta", tmp_path / "other")
    with pytest.raises(InputError, match="whose files differ"):
        make_plan(replace(ask(str(folder)), backbone=str(tmp_path / "other")))


def test_a_trained_sentence_cannot_be_loaded_without_training(world):
    with pytest.raises(InputError, match="must be trained first"):
        fusebench.load("mlp+info-nce", backbone=str(world / "tiny-bert"), device="cpu")


def test_fine_tuning_leaves_the_frozen_backbone_and_other_methods_as_they_were(ask, world):
    frozen = Backbone(find_backbone(str(world / "tiny-bert")), device="cpu")
    plan = make_plan(ask("mean", "mean+info-nce", "cls+info-nce", regime="finetune"))
    run(plan, Store(plan.options.out))
    held = {r.spec.method.name: r for r in Store(plan.options.out).records()}
    alone, _ = score(replace(ask("mean"), out=plan.options.out.with_name("alone")))
    assert held["mean"].main_score == alone["mean", "TinySTS", None].main_score
    learnt = held["mean+info-nce"].training
    assert (learnt.states, learnt.trained_parameters > 0) == ("trained backbone", True)
    for name, weight in frozen.model.state_dict().items():
        assert (plan.backbone.model.state_dict()[name] == weight).all()


def test_one_training_that_fails_is_a_failed_cell_and_the_others_go_on(ask, monkeypatch):
    step = Trainee.step

    def fail(self):
        if self.name.startswith("scalar-mix"):
            raise ArithmeticError("planted")
        return step(self)

    monkeypatch.setattr(Trainee, "step", fail)
    held, outcome = score(ask("mlp", "scalar-mix"))
    assert [name for name, *_ in held] == ["mlp+batch-softmax"]
    assert len(outcome.failures) == 1
    assert "scalar-mix" in outcome.failures[0]
    assert "planted" in outcome.failures[0]


def test_the_best_trial_on_dev_rows_is_kept_and_all_trials_count(ask):
    held, _ = score(ask("mlp", trials=3, dev="dev.tsv"))
    training = held["mlp+batch-softmax", "TinySTS", 0].training
    assert (training.trials, training.updates, training.examples) == (3, 9, 36)
    assert training.learning_rate_new in (1e-3, 1e-2, 1e-4)
    assert training.dev_score is not None


def test_the_log_of_every_training_lies_beside_the_records(ask):
    options = ask("scalar-mix", "mlp")
    score(options)
    logs = sorted(path.name for path in (options.out / "training").iterdir())
    assert len(logs) == 2
    text = (options.out / "training" / logs[1]).read_text()
    assert "layer_weight.0" in text
    assert not list((options.out / "checkpoints").glob("*"))
