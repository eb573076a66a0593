from __future__ import annotations

import pytest

from fusebench.errors import InputError
from fusebench.methods.backbone_source import find_backbone
from fusebench.methods.grammar import parse
from fusebench.methods.registry import cards
from fusebench.methods.states import StateShape
from fusebench.study.catalogue import CATALOGUE, catalogue_names, expand
from fusebench.study.plan import choose_methods
from tests.tiny_models import copy_of, edit_json, folder_of

FIT_TEXTS = 1288


def anything(texts, template):
    """A tokenizer that any template fits."""


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


def test_names_in_the_catalogue_are_unique():
    assert len(set(catalogue_names())) == len(CATALOGUE)


def test_no_two_entries_are_the_same_sentence():
    assert len({entry.sentence for entry in CATALOGUE}) == len(CATALOGUE)


def test_an_entry_named_like_a_part_is_that_part():
    parts = {card.name for card in cards()}
    assert all(entry.sentence == entry.name for entry in CATALOGUE if entry.name in parts)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_every_entry_is_a_sentence_of_the_grammar_on_one_line(entry):
    assert "\n" not in entry.about
    if entry.name != "native":
        parse(entry.sentence)
        assert expand(entry.name, None) == entry.sentence


@pytest.mark.parametrize("blocks", [2, 6, 12])
def test_every_entry_gives_methods_or_a_note_on_this_many_blocks(blocks):
    source, shape = find_backbone(str(folder_of("bert"))), StateShape(blocks, 32)
    together, notes = choose_methods((), source, shape, FIT_TEXTS, anything)
    noted = {note.partition(" is left out: ")[0] for note in notes}
    alone = set()
    for name in catalogue_names():
        try:
            methods, _ = choose_methods((name,), source, shape, FIT_TEXTS, anything)
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


@pytest.mark.parametrize("blocks", [2, 6, 12])
def test_every_chosen_method_can_be_written_and_read_again(blocks):
    shape = StateShape(blocks, 384)
    methods, _ = choose_methods((), find_backbone(str(folder_of("bert"))), shape, FIT_TEXTS, anything)
    for method in methods:
        assert parse(method.name).on(shape) == (method,)


@pytest.mark.parametrize("blocks", [2, 6, 12])
def test_a_sweep_gives_every_layer_a_row(blocks):
    shape = StateShape(blocks, 384)
    methods, _ = choose_methods(("layer-sweep",), find_backbone(str(folder_of("bert"))), shape, FIT_TEXTS, anything)
    assert [method.name for method in methods] == [*(f"mean(layer={k})" for k in range(blocks)), "mean"]


def test_names_expand_inside_longer_sentences():
    assert expand("second-to-last+whiten", None) == "mean(layer=-2)+whiten"
    assert expand("layer-sweep+whiten(k=8)", None) == "mean@each+whiten(k=8)"
    assert expand("mean-whitened+normalize", None) == "mean+whiten+normalize"


def test_native_is_what_the_folder_states(tmp_path):
    folder = _native(copy_of("bert", tmp_path), kinds=("Transformer", "Pooling", "Normalize"))
    assert expand("native", folder) == "cls+normalize"
    assert expand("native+whiten", folder) == "cls+normalize+whiten"
    source = find_backbone(str(folder))
    methods, notes = choose_methods(("native", "cls"), source, StateShape(3, 32), FIT_TEXTS, anything)
    assert [method.name for method in methods] == ["cls+normalize", "cls"]
    assert notes == ["native is cls+normalize"]


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


def test_all_and_nothing_mean_the_whole_catalogue():
    source, shape = find_backbone(str(folder_of("bert"))), StateShape(6, 384)
    everything = choose_methods((), source, shape, FIT_TEXTS, anything)
    assert choose_methods(("all",), source, shape, FIT_TEXTS, anything) == everything
    more, _ = choose_methods(("all", "mean(layer=3)+whiten(k=7)"), source, shape, FIT_TEXTS, anything)
    assert [method.name for method in more] == [*(m.name for m in everything[0]), "mean(layer=3)+whiten(k=7)"]


def test_an_entry_asked_for_by_name_raises_where_the_catalogue_leaves_it_out():
    source, shape = find_backbone(str(folder_of("bert"))), StateShape(6, 32)
    assert any(
        note.startswith("bert-whitening is left out") for note in choose_methods((), source, shape, 99, anything)[1]
    )
    with pytest.raises(InputError, match="k=256"):
        choose_methods(("all", "bert-whitening"), source, shape, 999, anything)


def test_every_entry_says_that_it_needs_no_training():
    assert {entry.regime for entry in CATALOGUE} == {"training-free"}
