"""What is read of attention maps equals its loop over queries, and what a guided training logs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fusebench.methods.attention_guides import MapChoice
from fusebench.methods.engine import SharedPass
from fusebench.methods.states import LayerStates, Needs
from fusebench.study.attention_reader import KEY, AttentionReader, read_attention, special_ends
from tests.tiny_models import BLOCKS, TEXTS, backbone_of

LENGTHS, HEADS = (4, 1, 6), 3


def states_of(side, heads=HEADS):
    """Maps of two blocks, large in the padding, and each text's real part [blocks, heads, queries, keys]."""
    generator = torch.Generator().manual_seed(5)
    width = max(LENGTHS) + 1
    attention = torch.full((2, len(LENGTHS), heads, width, width), 1e4).double()
    mask = torch.zeros(len(LENGTHS), width, dtype=torch.bool)
    texts = []
    for row, length in enumerate(LENGTHS):
        real = slice(0, length) if side == "right" else slice(width - length, width)
        scores = torch.randn(2, heads, length, length, generator=generator).double()
        attention[:, row, :, real, real] = scores.softmax(dim=-1)
        mask[row, real] = True
        texts.append(attention[:, row, :, real, real])
    hidden = (torch.zeros(len(LENGTHS), width, 1),) * 3
    return LayerStates(hidden, mask, dict(enumerate(attention.unbind(), start=1))), texts


def by_loop(maps):
    """Entropy over ln T, shares of the first and last token, mean cosine of two heads, of [heads, T, T]."""
    heads, length, _ = maps.shape
    rows = [maps[h, q].tolist() for h in range(heads) for q in range(length)]
    entropy = sum(-sum(a * math.log(a) for a in row) for row in rows) / len(rows)
    received = [[sum(maps[h, q, k].item() for q in range(length)) for k in range(length)] for h in range(heads)]
    cosines = [
        sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)
        for i, one in enumerate(received)
        for j, other in enumerate(received)
        if i != j
    ]
    return [
        entropy / math.log(length) if length > 1 else 1.0,
        sum(row[0] for row in rows) / len(rows),
        sum(row[-1] for row in rows) / len(rows),
        sum(cosines) / len(cosines),
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_reader_equals_its_loop_and_sees_no_padding(side):
    states, texts = states_of(side)
    expected = [by_loop(text[0]) + by_loop(text[1]) for text in texts]
    found = AttentionReader(backbone_of("bert").shape)(states)
    assert found.numpy() == pytest.approx(np.array(expected), rel=1e-9)


def test_the_reader_says_what_guides_log():
    states, _ = states_of("right")
    found = AttentionReader(backbone_of("bert").shape)(states).mean(dim=0)
    for block in (1, 2):
        logged = MapChoice("mdg", (block,), None, "received").statistics(states)
        entropy, first, _, cosine = found[4 * block - 4 : 4 * block].tolist()
        assert logged == pytest.approx({"entropy": entropy, "first_token_share": first, "map_cosine": cosine})


def test_a_single_head_has_no_cosine():
    states, _ = states_of("right", heads=1)
    found = AttentionReader(backbone_of("bert").shape)(states)
    assert found.isnan().nonzero()[:, 1].unique().tolist() == [3, 7]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_what_is_read_in_a_pass_is_the_mean_over_texts_of_single_passes(name):
    backbone = backbone_of(name)
    shared = SharedPass(backbone, {KEY: AttentionReader(backbone.shape)}, batch_tokens=40)
    rows = shared.rows(TEXTS)
    found = read_attention(shared, rows, shared.lengths(TEXTS), None)
    ids = backbone.tokenize(TEXTS).ids
    alone = [backbone.states([one], Needs.ATTENTION).attention for one in ids]
    assert [block.block for block in found.blocks] == list(range(1, BLOCKS + 1))
    for block in found.blocks:
        # Causal maps hold zeros, whose entropy is none.
        maps = [attention[block.block][0].double() for attention in alone]
        ends = [(m[:, :, 0].mean().item(), m[:, :, -1].mean().item()) for m in maps]
        entropy = [
            -torch.xlogy(m, m).sum(dim=-1).mean().item() / math.log(m.shape[-1]) for m in maps if len(m[0]) > 1
        ]
        entropy += [1.0] * sum(len(m[0]) == 1 for m in maps)
        assert (block.first_token, block.last_token) == pytest.approx(tuple(np.mean(ends, axis=0)), rel=1e-4)
        assert block.entropy == pytest.approx(np.mean(entropy), rel=1e-4)
    assert found.even_share == pytest.approx(np.mean([1 / len(one) for one in ids]))


@pytest.mark.parametrize(
    ("name", "ends"),
    [("bert", ("[CLS]", "[SEP]")), ("roberta", ("<s>", "</s>")), ("t5", (None, "</s>")), ("gpt2", (None, None))],
)
def test_the_special_tokens_at_the_ends_are_those_of_the_tokenizer(name, ends):
    assert special_ends(backbone_of(name)) == ends
