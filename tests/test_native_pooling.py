from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.methods.encoder import Encoder
from fusebench.methods.grammar import parse
from fusebench.methods.native_pooling import NativePooling, native_sentence
from fusebench.methods.states import StateShape
from fusebench.study.catalogue import expand
from fusebench.study.code_identity import code_sha256
from tests.tiny_models import copy_of, edit_json, folder_of, load, one_thread

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


def test_no_mode_at_all_is_the_mean_as_in_sentence_transformers(tmp_path):
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling = {"word_embedding_dimension": 32, **dict.fromkeys(FLAGS, False)}
    folder = write(tmp_path, pooling)
    assert Pooling.load(str(folder / "1_Pooling")).pooling_mode == "mean"
    assert native_sentence(folder) == "mean"


def test_a_mode_that_no_method_says_is_refused(tmp_path):
    with pytest.raises(InputError, match="attention"):
        native_sentence(write(tmp_path, {"pooling_mode": "attention"}))


@pytest.mark.parametrize("more", [["CNN"], ["Pooling"], ["Normalize", "Mine"], ["WeightedLayerPooling"]])
def test_a_chain_that_cannot_be_read_is_refused_by_its_modules(tmp_path, more):
    with pytest.raises(InputError, match=f"modules are Transformer, Pooling, {', '.join(more)}; what can be read"):
        native_sentence(write(tmp_path, {"pooling_mode": "mean"}, *more))


def test_a_module_outside_of_the_folder_is_refused(tmp_path):
    folder = write(tmp_path, {"pooling_mode": "mean"})
    edit = json.loads((folder / "modules.json").read_text())
    edit[1]["path"] = "../1_Pooling"
    (folder / "modules.json").write_text(json.dumps(edit))
    with pytest.raises(InputError, match=r"names '\.\./1_Pooling', which is no folder in it"):
        native_sentence(folder)


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


# Beside sentence-transformers itself


@pytest.fixture(autouse=True)
def _on_one_thread():
    with one_thread():
        yield


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


# Modules that no part here says


def built(folder, *modules, layers=False):
    """A saved model of these modules behind the tiny BERT, and its embeddings."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    start = copy_of("bert", folder)
    transformer = Transformer(str(start), config_kwargs={"output_hidden_states": True} if layers else {})
    model = SentenceTransformer(modules=[transformer, *modules], device="cpu")
    model.save(str(folder / "saved"), create_model_card=False)
    return folder / "saved", SentenceTransformer(str(folder / "saved"), device="cpu").encode(SHORT)


def dense(wide, narrow, activation=None, **settings):
    from sentence_transformers.sentence_transformer.modules import Dense

    torch.manual_seed(wide + narrow)
    return Dense(wide, narrow, activation_function=activation, **settings)


def chains():
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling, WeightedLayerPooling

    def mixed(start):
        weights = torch.nn.Parameter(torch.linspace(-0.2, 1.3, 4 - start))
        return WeightedLayerPooling(32, num_hidden_layers=3, layer_start=start, layer_weights=weights)

    return {
        "two modes": [Pooling(32, ("mean", "cls"))],
        "every mode": [Pooling(32, tuple(MODES)), Normalize()],
        "dense": [Pooling(32, "cls"), dense(32, 8, torch.nn.Tanh()), Normalize()],
        "dense twice, no bias": [Pooling(32, "mean"), dense(32, 64, bias=False), dense(64, 6), Normalize()],
        "normalised before": [Pooling(32, "max"), Normalize(), dense(32, 5)],
        "norm": [Pooling(32, "mean"), LayerNorm(32)],
        "layers": [mixed(0), Pooling(32, "mean")],
        "upper layers": [mixed(2), Pooling(32, ("max", "lasttoken")), dense(64, 16, torch.nn.GELU()), Normalize()],
    }


@pytest.mark.parametrize("chain", chains())
def test_a_chain_of_modules_gives_the_embeddings_of_sentence_transformers(tmp_path, monkeypatch, chain):
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    modules = chains()[chain]
    folder, expected = built(tmp_path, *modules, layers="layers" in chain)
    sentence = native_sentence(folder)
    assert re.fullmatch("native-[0-9a-f]{10}", sentence)
    vectors = Encoder(load(folder), parse(sentence)).encode(SHORT)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-6)


def test_native_is_one_name_for_equal_modules_and_another_for_other_weights(tmp_path, monkeypatch):
    from sentence_transformers.sentence_transformer.modules import Pooling

    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    names = []
    for place, shift in (("a", 0.0), ("b", 0.0), ("c", 1e-6)):
        (tmp_path / place).mkdir()
        mapped = dense(32, 8)
        with torch.no_grad():
            mapped.linear.bias[0] += shift
        names.append(native_sentence(built(tmp_path / place, Pooling(32, "mean"), mapped)[0]))
    assert names[0] == names[1] != names[2]
    parts = [registry.card(name).part for name in names]
    assert {part.__module__ for part in parts} == {NativePooling.__module__}
    assert all("Departures:" in part.__doc__ for part in parts)  # as of every part
    assert code_sha256([NativePooling.__module__]) != code_sha256([])


def test_the_fusion_of_a_folder_shares_no_weights_and_is_not_trained(tmp_path, monkeypatch):
    from sentence_transformers.sentence_transformer.modules import Pooling

    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    folder, _ = built(tmp_path, Pooling(32, "mean"), dense(32, 8))
    one, other = (parse(native_sentence(folder)).build_fusion(StateShape(3, 32)) for _ in range(2))
    assert [weight.requires_grad for weight in one.parameters()] == [False, False]
    assert not {w.data_ptr() for w in one.parameters()} & {w.data_ptr() for w in other.parameters()}
    with pytest.raises(InputError, match=r"native-\w+: the modules .* are not trained here"):
        expand("native+batch-softmax", folder)
    assert expand(f"{native_sentence(folder)}+whiten", folder) == expand("native+whiten", folder)
    with pytest.raises(InputError, match=r"no method 'native-0123456789'"):
        expand("native-0123456789", folder)


def test_modules_that_do_not_fit_the_backbone_are_refused(tmp_path, monkeypatch):
    from sentence_transformers.sentence_transformer.modules import Pooling

    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    folder, _ = built(tmp_path, Pooling(32, "mean"), dense(32, 8))
    with pytest.raises(InputError, match="do not fit each other or its 4 layer states"):
        parse(native_sentence(folder)).build_fusion(StateShape(3, 16))


def _pickled(folder):
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")


def _cut(folder):
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"cut")


def _foreign(folder):
    edit_json(folder / "2_Dense" / "config.json", activation_function="os.system")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_pickled, r"Dense of this backbone has no model\.safetensors, .* pickle can run code"),
        (_cut, r"Dense of this backbone cannot be read \(SafetensorError"),
        (_foreign, r"activation os\.system of this backbone is none of torch\.nn's"),
    ],
)
def test_damaged_and_foreign_modules_are_refused(tmp_path, damage, complaint):
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder, _ = built(tmp_path, Pooling(32, "mean"), dense(32, 8))
    damage(folder)
    with pytest.raises(InputError, match=complaint):
        native_sentence(folder)
