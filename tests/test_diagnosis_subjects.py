"""Which methods are measured on which backbone, and with whose weights."""

from __future__ import annotations

import pytest

from fusebench.errors import InputError
from fusebench.study import saved_methods
from fusebench.study.diagnosis_subjects import choose_subjects, described, trained_weights
from tests.tiny_gate import bench, make_world, options
from tests.tiny_models import BLOCKS, backbone_of, load

FROZEN, TUNED = "mlp+batch-softmax", "mean+batch-softmax"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny backbone with two trainings of a head, that differ in their seed, and one of the backbone."""
    world = make_world(tmp_path_factory.mktemp("world"))
    asked = options(world, tasks=("TinySTS",))
    bench(world, world / "out", FROZEN, tasks=("TinySTS",), seeds=(0, 1))
    finetune = {"training": asked.training.__class__(**{**vars(asked.training), "regime": "finetune"})}
    bench(world, world / "out", TUNED, tasks=("TinySTS",), **finetune)
    return world


@pytest.fixture(scope="module")
def backbone(world):
    return load(world / "models" / "tiny-bert")


def chosen(world, backbone, *sentences, every_training=False, out="out"):
    subjects, notes = choose_subjects(sentences, world / out, backbone, 40, every_training=every_training)
    found = {
        subject.tuned and subject.tuned.method.name: [
            one.method.name + (f" seed {one.saved.seed}" if one.saved else "") for one in subject.methods
        ]
        for subject in subjects
    }
    return found, notes


def test_a_trained_sentence_stands_for_each_of_its_trainings(world, backbone):
    found, _ = chosen(world, backbone, "mean", FROZEN)
    assert found == {None: ["mean", f"{FROZEN} seed 0", f"{FROZEN} seed 1"]}


def test_a_tuned_backbone_is_read_by_its_own_method_and_by_those_that_need_no_training(world, backbone):
    found, _ = chosen(world, backbone, "mean", FROZEN, f"{TUNED}+normalize")
    assert found[TUNED] == ["mean", f"{TUNED}+normalize seed 0"]
    assert found[None] == ["mean", f"{FROZEN} seed 0", f"{FROZEN} seed 1"]


def test_every_training_of_the_backbone_is_there_once_if_asked_for(world, backbone):
    found, notes = chosen(world, backbone, FROZEN, every_training=True)
    assert found == {None: [f"{FROZEN} seed 0", f"{FROZEN} seed 1"], TUNED: [f"{TUNED} seed 0"]}
    assert notes == []


def test_a_folder_is_the_training_in_it(world, backbone):
    folder = next(path for path in sorted((world / "out" / "trained").iterdir()) if "seed1" in path.name)
    assert chosen(world, backbone, str(folder))[0] == {None: [f"{FROZEN} seed 1"]}


def test_a_method_that_was_never_trained_is_refused_and_left_out_of_the_catalogue(world, backbone):
    with pytest.raises(
        InputError, match=r"hire\+batch-softmax has no training on this backbone.*--methods trains it"
    ):
        chosen(world, backbone, "hire")
    found, _ = chosen(world, backbone, "all")
    assert {"mean", "cls", "sbert-wk"} <= set(found[None])
    assert not any("simcse" in name for names in found.values() for name in names)


def test_trainings_of_another_backbone_and_damaged_ones_are_left_out_with_a_note(world, tmp_path):
    with pytest.raises(InputError, match=r"--trained: .* holds no training of albert"):
        chosen(world, backbone_of("albert"), "mean", every_training=True)
    (tmp_path / "trained" / "broken").mkdir(parents=True)
    (tmp_path / "trained" / "broken" / "method.json").write_text("{")
    for folder in (world / "out" / "trained").iterdir():
        (tmp_path / "trained" / folder.name).symlink_to(folder)
    found, notes = chosen(world, load(world / "models" / "tiny-bert"), every_training=True, out=tmp_path)
    assert len(found) == 2
    assert len(notes) == 1
    assert "broken holds no trained method" in notes[0]


def test_seeds_of_one_training_share_a_group_and_nothing_else_does(world):
    folders = sorted((world / "out" / "trained").iterdir())
    held = [trained_weights(saved_methods.load(folder)) for folder in folders]
    heads = [one for one in held if one.method == FROZEN]
    assert {one.seed for one in heads} == {0, 1}
    assert len({one.group for one in heads}) == 1
    assert len({one.group for one in held}) == 2
    assert all(folder.name.endswith(one.training_id) for folder, one in zip(folders, held, strict=True))


def test_a_layer_belongs_to_the_sweep_of_its_pooling_and_transforms(backbone, tmp_path):
    (subject,), _ = choose_subjects(
        ["mean(layer=1)", "mean", "mean(layer=0)+whiten(k=4)", "first-last"],
        tmp_path,
        backbone,
        40,
        every_training=False,
    )
    found = [described(one, None, backbone) for one in subject.methods]
    assert [(one.sweep, one.layer) for one in found] == [
        ("mean", 1),
        ("mean", BLOCKS),
        ("mean+whiten(k=4)", 0),
        (None, None),
    ]
