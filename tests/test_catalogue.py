"""Catalogue names stand for methods of the grammar, and learned fusions get an objective from it."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

import pytest

from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.methods.backbone_source import find_backbone
from fusebench.methods.grammar import parse
from fusebench.methods.registry import card, cards
from fusebench.methods.states import StateShape
from fusebench.study.catalogue import CATALOGUE, catalogue_names, expand, recorded_name
from fusebench.study.listing import show
from fusebench.study.plan import choose_methods
from tests.tiny_models import copy_of, edit_json, folder_of

FIT_TEXTS = 1288


@dataclass
class Backbone:
    """A backbone of this shape whose tokenizer any template fits."""

    shape: StateShape

    def tokenize(self, texts, template):
        pass


def choose(sentences, shape, *, source=None, fit_texts=FIT_TEXTS, regime="frozen"):
    """The methods that a run would have, and notes on what it leaves out."""
    source = source or find_backbone(str(folder_of("bert")))
    chosen, notes = choose_methods(sentences, source, Backbone(shape), fit_texts, regime=regime)
    return [one.method for one in chosen], notes


def _native(folder, *, mode="cls", kinds=("Transformer", "Pooling")):
    """Writes what a sentence-transformers folder says of its pooling."""
    modules = [
        {"idx": i, "name": str(i), "path": "1_Pooling" if kind == "Pooling" else "", "type": f"models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    edit_json(folder / "1_Pooling" / "config.json", **{f"pooling_mode_{mode}_token": True})
    (folder / "modules.json").write_text("[]")
    (folder / "modules.json").write_text(str(modules).replace("'", '"'))
    return folder


REGIMES = ("training-free", "frozen", "finetune")
LEARNED = {card.name for card in cards("fusion") if card.learned}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("hire", "hire+batch-softmax"),
        ("hire(hidden=64)+whiten", "hire(hidden=64)+batch-softmax+whiten"),
        ("mean(layer=-1)", "mean"),
        ("nobody", "nobody"),
        ("mean(", "mean("),
    ],
)
def test_a_method_has_the_name_that_records_give_it(written, name):
    assert recorded_name(written) == name


def test_names_in_the_catalogue_are_unique():
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)


def test_no_two_entries_of_a_regime_are_the_same_sentence():
    assert len({(entry.regime, entry.sentence) for entry in CATALOGUE}) == len(CATALOGUE)


def test_a_regime_has_its_own_entries_and_those_that_need_no_training():
    of = {regime: {entry.name for entry in CATALOGUE if entry.regime == regime} for regime in REGIMES}
    assert set(of) == {entry.regime for entry in CATALOGUE}
    assert set(catalogue_names("training-free")) == of["training-free"]
    assert set(catalogue_names("frozen")) == set(catalogue_names()) == of["training-free"] | of["frozen"]
    assert set(catalogue_names("finetune")) == of["training-free"] | of["finetune"]


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_an_entry_is_trained_if_its_regime_says_so(entry):
    if entry.name != "native":
        method = parse(entry.sentence)
        assert method.trained == (entry.regime != "training-free")
        assert method.fusion.name in LEARNED or entry.regime != "frozen"  # else there is nothing to train


def test_an_entry_named_like_a_part_is_that_part_with_its_objective_if_it_is_learned():
    parts = {card.name for card in cards()}
    for entry in CATALOGUE:
        if entry.name in parts:
            assert entry.sentence == entry.name + ("+batch-softmax" if entry.name in LEARNED else "")


def test_every_learned_fusion_of_the_project_is_an_entry_of_the_frozen_regime():
    here = {card.name for card in cards("fusion") if card.learned and card.part.__module__.startswith("fusebench.")}
    assert here <= {entry.name for entry in CATALOGUE if entry.regime == "frozen"}


def test_an_objective_of_the_frozen_regime_can_be_trained_on_pairs_triplets_and_scored_pairs():
    for entry in CATALOGUE:
        if entry.regime == "frozen":
            (objective,) = parse(entry.sentence).build_objectives()
            assert set(objective.reads) >= {"pairs", "triplets", "scored-pairs"}


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_every_entry_is_a_canonical_sentence_of_the_grammar_on_one_line(entry):
    assert "\n" not in entry.about
    if entry.name != "native":
        assert parse(entry.sentence).name == entry.sentence
        assert expand(entry.name, None) == entry.sentence


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("blocks", [2, 6, 12])
def test_every_entry_gives_methods_or_a_note_on_this_many_blocks(blocks, regime):
    shape = StateShape(blocks, 32)
    together, notes = choose((), shape, regime=regime)
    noted = {note.partition(" is left out: ")[0] for note in notes}
    alone = set()
    for name in catalogue_names(regime):
        try:
            methods, _ = choose((name,), shape, regime=regime)
        except InputError:
            assert name in noted
            continue
        assert methods
        assert name not in noted
        alone |= {method.name for method in methods}
    assert {method.name for method in together} == alone
    # 32 dimensions cannot be whitened to 256, this folder states no pooling, and two blocks have no last four
    expected = {"native", "mean-whitened-256", "bert-whitening"}
    assert noted - expected <= ({"last-k-mean", "last-k-sum", "last-k-concat"} if blocks == 2 else set())
    assert expected <= noted


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("blocks", [2, 6, 12])
def test_every_chosen_method_can_be_written_and_read_again(blocks, regime):
    shape = StateShape(blocks, 384)
    methods, _ = choose((), shape, regime=regime)
    for method in methods:
        assert parse(method.name).on(shape) == (method,)


@pytest.mark.parametrize("blocks", [2, 6, 12])
def test_a_sweep_gives_every_layer_a_row(blocks):
    methods, _ = choose(("layer-sweep",), StateShape(blocks, 384))
    assert [method.name for method in methods] == [*(f"mean(layer={k})" for k in range(blocks)), "mean"]


@pytest.mark.parametrize("name", sorted(LEARNED))
def test_a_learned_fusion_takes_its_objective_from_the_catalogue(name):
    assert expand(name, None) == f"{name}+batch-softmax"
    assert expand(f"{name}(untrained)+whiten", None) == f"{name}(untrained)+whiten"
    assert expand(f"{name}+simcse-sup", None) == f"{name}+simcse-sup"
    assert expand(f"mse-cosine+{name}", None) == f"mse-cosine+{name}"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("hire(hidden=64)+whiten", "hire(hidden=64)+batch-softmax+whiten"),
        (" hire ( hidden = 64 ) + whiten", "hire ( hidden = 64 )+batch-softmax+whiten"),
        ("hire(hidden=64,untrained)+whiten", "hire(hidden=64,untrained)+whiten"),
        ("hire+mdg+example-shuffling", "hire+batch-softmax+mdg+example-shuffling"),
        ("whiten+hire", "whiten+hire+batch-softmax"),
        ("layer-attention(query=last)", "layer-attention(query=last)+batch-softmax"),
        ("layer-attention-single-query", "layer-attention(query=last)+batch-softmax"),
        ("layer-attention-single-query+whiten", "layer-attention(query=last)+batch-softmax+whiten"),
        ("layer-attention-no-concat+simcse-sup", "layer-attention(concat=false)+simcse-sup"),
        ("mean-two-stage+whiten", "mean+batch-softmax+mse-cosine+whiten"),
        ("mean-mdg-pdg+example-shuffling", "mean+batch-softmax+mdg+pdg+example-shuffling"),
        ("mean-batch-softmax+mse-cosine", "mean+batch-softmax+mse-cosine"),
        ("mean+whiten", "mean+whiten"),
        ("hire+mlp", "hire+mlp"),  # for the grammar to refuse as the user wrote it
    ],
)
def test_a_sentence_without_an_objective_is_completed_if_its_fusion_is_learned(written, meant):
    assert expand(written, None) == meant


def test_a_name_of_the_catalogue_wins_over_a_part_registered_later(monkeypatch):
    known = {"second-to-last": card("mean"), "mean-two-stage": card("cls"), **registry._CARDS}
    monkeypatch.setattr(registry, "_CARDS", known)
    assert expand("second-to-last", None) == "mean(layer=-2)"
    assert expand("mean-two-stage", None) == "mean+batch-softmax+mse-cosine"


@pytest.mark.parametrize("sentence", ["hire(hiden=3)", "hire(hidden=x)", "hire(hidden)"])
def test_a_wrong_parameter_of_a_learned_fusion_is_refused_with_the_sentence_as_written(sentence):
    with pytest.raises(InputError, match=f"'{re.escape(sentence)}'"):
        expand(sentence, None)


def test_names_expand_inside_longer_sentences():
    assert expand("second-to-last+whiten", None) == "mean(layer=-2)+whiten"
    assert expand("layer-sweep+whiten(k=8)", None) == "mean@each+whiten(k=8)"
    assert expand("mean-whitened+normalize", None) == "mean+whiten+normalize"


def test_native_is_what_the_folder_states(tmp_path):
    folder = _native(copy_of("bert", tmp_path), kinds=("Transformer", "Pooling", "Normalize"))
    assert expand("native", folder) == "cls+normalize"
    assert expand("native+whiten", folder) == "cls+normalize+whiten"
    source = find_backbone(str(folder))
    methods, notes = choose(("native", "cls"), StateShape(3, 32), source=source)
    assert [method.name for method in methods] == ["cls+normalize", "cls"]
    assert notes == ["native is cls+normalize"]
    assert parse(expand("native+batch-softmax", folder)).name == "cls+batch-softmax+normalize"


def test_native_stays_unresolved_without_a_folder():
    assert expand("native+whiten", None) == "native+whiten"


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("second-to-lst", "second-to-last"), ("nativ", "native"), ("Mean", "mean"), ("mean+whitn", "whiten")],
)
def test_an_unknown_name_suggests_the_nearest_of_parts_and_catalogue(wrong, near):
    with pytest.raises(InputError, match=f"Did you mean .*'{near}'"):
        expand(wrong, None)


@pytest.mark.parametrize("sentence", ["layer-sweep(layer=1)", "second-to-last@each"])
def test_a_catalogue_name_takes_no_parameters(sentence):
    with pytest.raises(InputError, match="stands for mean"):
        expand(sentence, None)


def test_an_empty_sentence_stays_empty_for_the_grammar_to_refuse():
    assert expand(" ", None) == ""
    with pytest.raises(InputError, match="a method is empty"):
        parse(expand(" ", None))


@pytest.mark.parametrize("regime", REGIMES)
def test_all_and_nothing_mean_the_regime_s_whole_catalogue(regime):
    shape = StateShape(6, 384)
    everything = choose((), shape, regime=regime)
    assert choose(("all",), shape, regime=regime) == everything
    more, _ = choose(("all", "mean(layer=3)+whiten(k=7)"), shape, regime=regime)
    assert [method.name for method in more] == [*(m.name for m in everything[0]), "mean(layer=3)+whiten(k=7)"]


def test_an_entry_asked_for_by_name_raises_where_the_catalogue_leaves_it_out():
    shape = StateShape(6, 32)
    assert any(note.startswith("bert-whitening is left out") for note in choose((), shape, fit_texts=99)[1])
    with pytest.raises(InputError, match="k=256"):
        choose(("all", "bert-whitening"), shape, fit_texts=999)


def listed(capsys, *, training_free, names):
    code = show(argparse.Namespace(what="methods", names=names, training_free=training_free, plugin=[]))
    assert code == 0
    return capsys.readouterr().out.splitlines()


def test_the_list_names_all_entries_or_those_that_need_no_training(capsys):
    assert listed(capsys, training_free=False, names=True) == [entry.name for entry in CATALOGUE]
    assert listed(capsys, training_free=True, names=True) == catalogue_names("training-free")


def test_the_list_shows_regimes_and_every_kind_of_part(capsys):
    lines = [line.split() for line in listed(capsys, training_free=False, names=False)]
    for entry in CATALOGUE:
        assert any(words[:3] == [entry.name, entry.sentence, entry.regime] for words in lines), entry.name
    kinds = {"fusion", "objective", "guide", "sampler", "transform"}
    assert kinds <= {words[1] for words in lines if len(words) > 1}
    assert any(words[:2] == ["example-shuffling", "sampler"] for words in lines)
