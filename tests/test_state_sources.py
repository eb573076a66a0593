"""Stored, cached and live states are the same states, and frozen noise is drawn from seeds."""

import errno
import os

import numpy as np
import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.state_sources import CachedTokenSource, LiveSource
from fusebench.methods.states import Needs
from tests.tiny_models import backbone_of, copy_of, edit_json, load, one_thread
from tests.tiny_training import TEXTS, cached, live, pooled

NUMBERS = np.array([3, 0, 7, 7, 12])
SIDES = {"bert": "right", "gpt2": "left"}  # gpt2's dropout is 0.1 too


@pytest.fixture(autouse=True, scope="module")
def _on_one_thread():
    with one_thread():
        yield


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def real(states, layer):
    return [states.hidden[layer][row, states.mask[row]] for row in range(len(states.mask))]


@pytest.mark.parametrize("backbone", SIDES)
def test_cached_states_are_those_of_each_text_alone_whichever_side_is_padded(backbone, tmp_path):
    assert backbone_of(backbone).padding_side == SIDES[backbone]
    source = cached(tmp_path, backbone=backbone, layers=(0, 2))
    found, batch = source.states(NUMBERS, None), live(backbone).states(NUMBERS, None)
    for layer in (0, 2):
        for row, number in enumerate(NUMBERS):
            alone = live(backbone).states(np.array([number]), None).hidden[layer][0]
            close(real(found, layer)[row], alone)
            close(real(batch, layer)[row], alone)
        close(found.mean(layer), batch.mean(layer))
        close(found.first(layer), batch.first(layer))
    assert found.mask.sum(dim=1).tolist() == batch.mask.sum(dim=1).tolist() == source.lengths[NUMBERS].tolist()
    for layer in (1, 3):  # read by nobody
        assert found.hidden[layer].isnan().all()
        assert found.hidden[layer].shape == found.hidden[0].shape


@pytest.mark.parametrize("backbone", SIDES)
def test_pooled_states_are_means_and_first_tokens_of_live_ones(backbone):
    source = pooled("layer-attention", backbone=backbone)
    found, expected = source.states(NUMBERS, None), live(backbone).states(NUMBERS, None)
    for layer in range(4):
        close(found.mean(layer), expected.mean(layer))
        close(found.first(layer), expected.first(layer))
    assert source.lengths.tolist() == live(backbone).lengths.tolist()
    assert source.numbers == live(backbone).numbers == {text: n for n, text in enumerate(TEXTS)}


@pytest.mark.parametrize("backbone", SIDES)
def test_cached_views_are_the_live_views_of_the_batches_that_filled_the_cache(backbone, tmp_path):
    texts = TEXTS[:6]
    source = cached(tmp_path, backbone=backbone, views=(None, 0, 1), texts=texts)
    filling = LiveSource(backbone_of(backbone), texts, Needs.TOKENS, noise_seed=3)
    longest_first = np.argsort(-filling.lengths, kind="stable")  # one batch has room for all
    for view in (None, 0, 1):
        expected = filling.states(longest_first, view)
        found = source.states(longest_first, view)
        for layer in range(4):
            for a, b in zip(real(found, layer), real(expected, layer), strict=True):
                assert torch.equal(a, b)


def vectors(kind, folder):
    """Means of the last layer by view, each view read twice."""
    source = {
        "pooled": lambda: pooled("mlp", views=(0, 1)),
        "cached": lambda: cached(folder, views=(None, 0, 1)),
        "live": live,
    }[kind]()
    return {view: [source.states(NUMBERS, view).mean(3) for _ in range(2)] for view in (None, 0, 1)}


@pytest.mark.parametrize("kind", ["pooled", "cached", "live"])
def test_two_views_differ_from_each_other_and_from_the_clean_states_and_are_seeded(kind, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again = (vectors(kind, tmp_path) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for view in (None, 0, 1):
        assert torch.equal(first[view][0], first[view][1])
        assert torch.equal(first[view][0], again[view][0])
        for other in {None, 0, 1} - {view}:
            assert not torch.allclose(first[view][0], first[other][0], atol=1e-3)
    assert not backbone_of("bert").model.training


def test_noise_is_another_in_every_batch_so_that_no_place_in_it_can_be_told_by_its_noise():
    texts = ["the cat", "The cat", "THE cat"]  # one sequence of tokens
    source = LiveSource(backbone_of("bert"), texts, Needs.TOKENS, noise_seed=3)
    clean = [source.states(np.array([n]), None).hidden[3] for n in range(3)]
    noised = [source.states(np.array([n]), 0).hidden[3] for n in range(3)]
    assert torch.equal(clean[0], clean[1])
    assert not torch.allclose(noised[0], noised[1], atol=1e-3)
    assert not torch.allclose(noised[1], noised[2], atol=1e-3)


@pytest.mark.parametrize("kind", ["live", "pooled"])
def test_noise_of_a_backbone_without_dropout_is_refused(kind, tmp_path):
    folder = copy_of("bert", tmp_path)
    edit_json(folder / "config.json", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    source = LiveSource(load(folder), TEXTS, Needs.TOKENS)
    with pytest.raises(InputError, match="has no dropout"):
        source.states(NUMBERS, 0)


def test_a_trained_source_gives_states_with_gradients_and_leaves_the_frozen_one_without():
    backbone = backbone_of("bert").trainable_copy()
    source = LiveSource(backbone, TEXTS, Needs.TOKENS | Needs.ATTENTION, train=True, map_blocks=(2,))
    states = source.states(NUMBERS, None)
    assert states.hidden[0].requires_grad
    assert set(states.attention) == {2}
    assert source.kind == "trained backbone"
    assert not any(state.requires_grad for state in live().states(NUMBERS, None).hidden)


def test_a_template_s_mask_token_is_found_in_padded_rows():
    for backbone in SIDES:
        loaded = backbone_of(backbone)
        if loaded.tokenizer.mask_token_id is None:
            continue
        source = LiveSource(loaded, TEXTS, Needs.MARKER, template="this sentence of {text} means {mask} .")
        states = source.states(NUMBERS, None)
        tokens, _ = loaded.pad([source._ids[n] for n in NUMBERS])
        found = tokens[torch.arange(len(NUMBERS)), states.marker]
        assert (found == loaded.tokenizer.mask_token_id).all()


def test_the_room_of_a_cache_is_known_beforehand(tmp_path, monkeypatch):
    lengths = live().lengths
    reserved = []
    original = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda fd, at, size: reserved.append(size) or original(fd, at, size))
    cached(tmp_path, layers=(1, 3), views=(None, 0))
    assert reserved == [lengths.sum() * 2 * 32 * 2 * 4]
    assert CachedTokenSource.gigabytes(lengths, 2, 32, 2) == pytest.approx(reserved[0] / 1e9)
    assert list(tmp_path.iterdir()) == []  # the file has no name, so nothing is left of it


def test_a_disk_without_room_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="--state-cache-gb 0"):
        cached(tmp_path)
