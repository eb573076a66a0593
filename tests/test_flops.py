"""Counted operations and weights against torch's own counter and transformers' own models, which hold no memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from fusebench.study.flops import BERT_BASE, LLAMA_70B, Transformer

SIZES = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 80}


def bert():
    config = BertConfig(**SIZES, num_attention_heads=4, attn_implementation="eager")
    return BertModel(config, add_pooling_layer=False), Transformer(3, 64, 80, 100)


def llama():
    config = LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager")
    return LlamaModel(config), Transformer(3, 64, 80, 100, gated=True, key_value=1 / 2)


@pytest.mark.parametrize("build", [bert, llama])
def test_a_forward_pass_takes_the_operations_that_torch_counts(build):
    with torch.device("meta"):
        model, shape = build()
        ids = torch.zeros((2, 20), dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids)
    # torch also counts the rotary angles of a Llama, a 1 by n product
    assert shape.forward(20) * 40 == pytest.approx(counter.get_total_flops(), rel=2e-3)


@pytest.mark.parametrize("build", [bert, llama])
def test_the_weights_of_the_blocks_are_their_matrices(build):
    with torch.device("meta"):
        model, shape = build()
    blocks = model.encoder.layer if hasattr(model, "encoder") else model.layers
    assert shape.block_weights == sum(weight.numel() for weight in blocks.parameters() if weight.ndim > 1)


def test_known_models_have_their_known_sizes():
    assert BERT_BASE.weights == pytest.approx(109e6, rel=0.02)
    assert LLAMA_70B.weights == pytest.approx(69e9, rel=0.02)


def test_an_update_is_three_forward_passes_and_four_where_states_are_recomputed():
    assert BERT_BASE.training(10) == 3 * BERT_BASE.forward(10)
    assert BERT_BASE.training(10, recomputed=True) == 4 * BERT_BASE.forward(10)
