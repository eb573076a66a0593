"""A trained method on disk comes back as it was, or is refused."""

import json
import shutil

import pytest
import torch

from fusebench.benchmarks.record import MethodSpec, PartSpec
from fusebench.benchmarks.sealed_json import sealed_text, unsealed
from fusebench.errors import InputError
from fusebench.methods.checkpoint import load_module
from fusebench.methods.grammar import parse
from fusebench.study.saved_methods import folder_of, is_intact, is_saved, load, save
from tests.invented_records import trained, training
from tests.tiny_models import backbone_of
from tests.tiny_training import assert_bitwise, live, trainee

SENTENCE = "mlp+batch-softmax(temperature=0.2)"


def parts(sentence):
    return tuple(PartSpec(kind=p.card.kind, name=p.name, params=dict(p.params)) for p in parse(sentence).parts)


@pytest.fixture
def saved(tmp_path):
    """The folder of a method that was just saved, its record and its weights."""
    sentence = f"{SENTENCE}+normalize"
    record = trained(sentence)
    spec = record.spec.model_copy(update={"method": MethodSpec(name=sentence, parts=parts(sentence))})
    method, one = parse(sentence), trainee(SENTENCE)
    folder = folder_of(tmp_path, spec, method)
    save(folder, spec, method, one.weights(None), training(), record.environment)
    return folder, spec, one.weights(None)


def edited(folder, **changes):
    """Writes the card anew, with its seal."""
    path = folder / "method.json"
    path.write_text(sealed_text({**unsealed(path.read_bytes()), **changes}))


def test_it_comes_back_without_transforms_as_it_was_saved(saved):
    folder, spec, weights = saved
    assert is_saved(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["method.json", "weights.safetensors"]
    found = load(folder)
    assert found.method == parse(SENTENCE)
    assert (found.seed, found.regime, found.train) == (spec.seed, "frozen", spec.train)
    assert found.training == training()
    assert found.identity == spec.training_identity
    assert_bitwise(found.tensors(), weights)


def test_its_place_follows_from_what_the_weights_depend_on(saved, tmp_path):
    folder, spec, _ = saved
    assert folder.parent == tmp_path / "trained"
    assert folder.name.endswith(f"-seed{spec.seed}-{spec.training_id}")
    again = folder_of(tmp_path, spec.model_copy(update={"seed": 2}), parse(SENTENCE))
    assert again != folder
    other_transform = spec.model_copy(update={"method": MethodSpec(name=SENTENCE, parts=parts(SENTENCE))})
    assert folder_of(tmp_path, other_transform, parse(SENTENCE)) == folder


def test_another_weights_file_is_refused(saved):
    folder, _, _ = saved
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = load(folder)
    with pytest.raises(InputError, match="beside it names; train the method again"):
        found.tensors()
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        found.tensors()


def test_every_flipped_byte_of_card_or_weights_is_found(saved):
    folder, _, weights = saved
    for path in (folder / "method.json", folder / "weights.safetensors"):
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            if is_intact(folder):
                assert whole[place : place + 1].isspace()
        path.write_bytes(whole)
    assert is_intact(folder)
    assert_bitwise(load(folder).tensors(), weights)


def test_a_card_from_before_there_were_seals_is_read(saved):
    folder, _, weights = saved
    (folder / "method.json").write_text(json.dumps(unsealed((folder / "method.json").read_bytes())))
    assert_bitwise(load(folder).tensors(), weights)


def test_a_card_of_other_weights_is_refused(saved):
    folder, _, _ = saved
    edited(folder, weights_sha256="0" * 64)
    with pytest.raises(InputError, match="not the file"):
        load(folder).tensors()


def test_an_edited_identity_is_refused(saved):
    folder, spec, _ = saved
    edited(folder, identity={**spec.training_identity, "seed": 7})
    with pytest.raises(InputError, match="was changed by hand"):
        load(folder)


def test_another_schema_is_refused_by_its_number(saved):
    folder, _, _ = saved
    for version in (99, None):
        edited(folder, schema_version=version)
        with pytest.raises(InputError, match=f"has schema version {version}; this version reads 1"):
            load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1}'])
def test_a_card_that_cannot_be_read_is_refused(saved, text):
    folder, _, _ = saved
    (folder / "method.json").write_text(text)
    with pytest.raises(InputError, match="holds no trained method"):
        load(folder)


def test_weights_without_a_card_are_no_saved_method(saved, tmp_path):
    """The card is written last, so a run that was killed in between leaves nothing that is taken for whole."""
    folder, _, _ = saved
    (folder / "method.json").unlink()
    assert not is_saved(folder)
    with pytest.raises(InputError, match="holds no trained method"):
        load(folder)
    with pytest.raises(InputError, match="holds no trained method"):
        load(tmp_path / "absent")


def test_a_folder_may_be_moved(saved, tmp_path):
    folder, _, weights = saved
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert_bitwise(load(moved).tensors(), weights)


def test_a_loaded_method_embeds_as_the_one_that_was_saved(saved):
    folder, _, _ = saved
    found = load(folder)
    fusion = found.method.build_fusion(backbone_of("bert").shape)
    load_module(fusion, found.tensors(), "fusion.")
    states = live().states(live().lengths.argsort()[:3], None)
    with torch.no_grad():
        assert torch.equal(fusion(states), trainee(SENTENCE).fusion.eval()(states))
