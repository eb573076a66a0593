from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.encoder import Encoder
from fusebench.methods.grammar import parse
from fusebench.methods.pooling_config import native_sentence, stated_lower_case, stated_max_length
from tests.tiny_models import copy_of, edit_json, folder_of, load

FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt-len",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last-token",
}
MODES = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "mean-sqrt-len",
    "weightedmean": "weighted-mean",
    "lasttoken": "last-token",
}
TEXTS = ["the cat sat on the mat.", "a dog", "w1 w2, w3! w4", "  Dogs  ", "THE Cat sat on the mat.", "w9 " * 300]
SHORT = TEXTS[:-1]


def write(folder, pooling, *more, prefix="sentence_transformers.models."):
    """A folder in the layout of sentence-transformers."""
    kinds = ["Transformer", "Pooling", *more]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": prefix + kind}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(("flag", "part"), FLAGS.items())
def test_each_flag_of_older_folders_is_a_method(tmp_path, flag, part):
    pooling = {"word_embedding_dimension": 32, **dict.fromkeys(FLAGS, False), flag: True}
    assert native_sentence(write(tmp_path, pooling)) == part
    assert parse(part).name == part


@pytest.mark.parametrize("shape", [lambda mode: mode, lambda mode: [mode]], ids=["text", "list"])
@pytest.mark.parametrize(("mode", "part"), MODES.items())
def test_each_mode_of_newer_folders_is_a_method(tmp_path, mode, part, shape):
    folder = write(tmp_path, {"embedding_dimension": 32, "pooling_mode": shape(mode)}, "Normalize")
    assert native_sentence(folder) == f"{part}+normalize"


def test_several_modes_at_once_are_refused(tmp_path):
    folder = write(tmp_path, {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True})
    with pytest.raises(InputError, match=r"pools by cls and max; one of cls, mean, .* is supported"):
        native_sentence(folder)


def test_no_mode_at_all_is_the_mean_as_in_sentence_transformers(tmp_path):
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling = {"word_embedding_dimension": 32, **dict.fromkeys(FLAGS, False)}
    folder = write(tmp_path, pooling)
    assert Pooling.load(str(folder / "1_Pooling")).pooling_mode == "mean"
    assert native_sentence(folder) == "mean"


def test_a_mode_that_no_method_says_is_refused(tmp_path):
    with pytest.raises(InputError, match="attention"):
        native_sentence(write(tmp_path, {"pooling_mode": "attention"}))


@pytest.mark.parametrize("more", [["Dense"], ["Dense", "Normalize"], ["Normalize", "Dense"]])
def test_modules_after_pooling_other_than_normalize_are_refused(tmp_path, more):
    with pytest.raises(InputError, match=r"Transformer, Pooling, .*Dense.*; only pooling is supported"):
        native_sentence(write(tmp_path, {"pooling_mode": "mean"}, *more))


def test_a_folder_without_modules_states_no_pooling():
    with pytest.raises(InputError, match=r"no modules\.json"):
        native_sentence(folder_of("bert"))


@pytest.mark.parametrize("garbage", ["", "{", "{}", "null", '"text"', "[1]", "[{}]"])
def test_garbled_modules_are_refused(tmp_path, garbage):
    (tmp_path / "modules.json").write_text(garbage)
    with pytest.raises(InputError, match="modules"):
        native_sentence(tmp_path)


def test_a_pooling_without_its_file_is_refused(tmp_path):
    (write(tmp_path, {}) / "1_Pooling" / "config.json").unlink()
    with pytest.raises(InputError, match=r"pooling module .* has no config\.json"):
        native_sentence(tmp_path)


@pytest.mark.parametrize("garbage", ["", "{", "[]", "null", '{"pooling_mode": 3}', '{"pooling_mode": [3]}'])
def test_a_garbled_pooling_is_refused(tmp_path, garbage):
    (write(tmp_path, {}) / "1_Pooling" / "config.json").write_text(garbage)
    with pytest.raises(InputError):
        native_sentence(tmp_path)


def test_settings_of_sentence_transformers_are_read_and_may_be_absent(tmp_path):
    assert (stated_max_length(tmp_path), stated_lower_case(tmp_path)) == (None, False)
    settings = tmp_path / "sentence_bert_config.json"
    settings.write_text('{"max_seq_length": 77, "do_lower_case": true}')
    assert (stated_max_length(tmp_path), stated_lower_case(tmp_path)) == (77, True)
    settings.write_text('{"max_seq_length": null}')
    assert (stated_max_length(tmp_path), stated_lower_case(tmp_path)) == (None, False)


# Beside sentence-transformers itself


@pytest.fixture(autouse=True)
def _one_thread():
    """Two threads on models this small only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(architecture, mode, folder, texts, normalize=False, lower=False, **settings):
    """A model of sentence-transformers, saved; returns its embeddings of the texts as well."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    start = copy_of(architecture, folder)
    if architecture == "llama":
        edit_json(start / "tokenizer_config.json", pad_token="<|end|>")
    if lower:
        (start / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
        transformer = Transformer.load(str(start))
    else:
        transformer = Transformer(str(start), **settings)
    modules = [transformer, Pooling(32, mode), *([Normalize()] if normalize else [])]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "saved"), create_model_card=False)
    if lower:
        (folder / "saved" / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
        shutil.copy(start / "tokenizer.json", folder / "saved")  # the saved one has learned to lower by itself
    model = SentenceTransformer(str(folder / "saved"), device="cpu")
    return folder / "saved", model.encode(texts, convert_to_numpy=True)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_native_gives_the_embeddings_of_sentence_transformers(tmp_path, mode, normalize):
    folder, expected = saved("bert", mode, tmp_path, TEXTS, normalize)
    sentence = native_sentence(folder)
    assert sentence == MODES[mode] + ("+normalize" if normalize else "")
    np.testing.assert_allclose(Encoder(load(folder), parse(sentence)).encode(TEXTS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "mode"), [("roberta", "mean"), ("mpnet", "cls"), ("t5", "mean"), ("llama", "lasttoken")]
)
def test_native_is_faithful_for_other_architectures_too(tmp_path, architecture, mode):
    folder, expected = saved(architecture, mode, tmp_path, SHORT)
    vectors = Encoder(load(folder), parse(native_sentence(folder))).encode(SHORT)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)


def test_native_obeys_the_length_limit_of_sentence_transformers(tmp_path):
    folder, expected = saved("bert", "mean", tmp_path, TEXTS, max_seq_length=20)
    backbone = load(folder)
    assert backbone.limit.tokens == 20
    np.testing.assert_allclose(Encoder(backbone, parse("mean")).encode(TEXTS), expected, rtol=0, atol=1e-5)


def test_native_lowers_case_where_sentence_transformers_does(tmp_path):
    folder, expected = saved("roberta", "mean", tmp_path, SHORT, lower=True)
    np.testing.assert_allclose(expected[0], expected[4], rtol=0, atol=1e-6)
    np.testing.assert_allclose(Encoder(load(folder), parse("mean")).encode(SHORT), expected, rtol=0, atol=1e-5)
