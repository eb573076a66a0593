from __future__ import annotations

import pytest
import torch

from fusebench.run_bench import main
from fusebench.study.doctor import PROBES, check_layers
from tests.tiny_models import BLOCKS, KINDS, backbone_of, folder_of

POST_NORM = ["bert", "distilbert", "albert"]
PRE_NORM = ["modernbert", "llama", "t5", "t5-encoder", "gpt2"]


@pytest.mark.parametrize("name", POST_NORM)
def test_a_post_norm_model_has_the_same_layers_by_both_protocols(name):
    assert not KINDS[name].pre_norm
    checks = check_layers(backbone_of(name))
    assert [check.layer for check in checks] == list(range(1, BLOCKS + 1))
    assert [check.difference for check in checks] == [0.0] * BLOCKS
    assert all(check.cosine == pytest.approx(1, abs=1e-6) for check in checks)


@pytest.mark.parametrize("name", PRE_NORM)
def test_a_pre_norm_model_differs_in_all_layers_but_the_last(name):
    *inner, last = check_layers(backbone_of(name))
    assert all(check.difference > 0.1 and check.cosine < 0.999 for check in inner)
    assert last.difference == 0.0


def test_the_difference_is_the_final_norm_and_nothing_else():
    backbone = backbone_of("llama")
    ids = list(backbone.tokenize(PROBES).ids)
    states = backbone.states(ids)
    for check in check_layers(backbone)[:-1]:
        raw = states.hidden[check.layer][states.mask]
        with torch.no_grad():
            normed = backbone.model.norm(raw)
        assert check.difference == pytest.approx(float((normed - raw).abs().max()), rel=1e-5)
        assert check.norm == pytest.approx(float(raw.norm(dim=1).mean()), rel=1e-5)


def test_checking_leaves_the_backbone_as_it_was():
    backbone = backbone_of("modernbert")
    ids = list(backbone.tokenize(PROBES).ids)
    model, before = backbone.model, backbone.states(ids).hidden[-1].clone()
    check_layers(backbone)
    assert backbone.model is model
    assert backbone.config.num_hidden_layers == BLOCKS
    assert torch.equal(backbone.states(ids).hidden[-1], before)


@pytest.mark.parametrize(("name", "verdicts"), [("bert", ["same"] * 3), ("llama", ["DIFFERS", "DIFFERS", "same"])])
def test_the_command_prints_the_facts_and_a_verdict_a_layer(capsys, name, verdicts):
    assert main(["doctor", "--backbone", str(folder_of(name)), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines() if line.split()[1:2] and line.split()[1].isdigit()]
    assert [row[-2] for row in rows] == verdicts
    assert f"{BLOCKS} blocks, 32 wide" in shown
    assert ("state 3 alone" in shown) == (name == "llama")
