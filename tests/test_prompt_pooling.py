"""Prompt pooling reads the vector at the template's mask token."""

import pytest
import torch

from fusebench.errors import InputError
from fusebench.methods.prompt_pooling import PromptMask
from fusebench.methods.states import LayerStates, StateShape

SHAPE = StateShape(blocks=2, dim=4)


def make(marker):
    hidden = torch.randn(3, 3, 6, 4, generator=torch.Generator().manual_seed(4))
    return LayerStates(hidden.unbind(), torch.ones(3, 6, dtype=torch.bool), marker=marker)


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_it_reads_the_marked_token_of_each_row(layer):
    states = make(torch.tensor([5, 0, 2]))
    found = PromptMask(SHAPE, layer=layer)(states)
    for row, place in enumerate([5, 0, 2]):
        assert torch.equal(found[row], states.hidden[layer][row, place])


def test_states_without_a_marker_are_refused():
    with pytest.raises(ValueError, match="templated input"):
        PromptMask(SHAPE)(make(None))


def test_the_template_is_passed_on():
    assert PromptMask(SHAPE).template == 'This sentence of "{text}" means {mask}.'
    assert PromptMask(SHAPE, template="{mask} = {text}").template == "{mask} = {text}"


@pytest.mark.parametrize("template", ["", "{text}", "{mask}", "{text} {text} {mask}", "{text} {mask} {mask}"])
def test_a_template_needs_the_text_and_the_mask_once_each(template):
    with pytest.raises(InputError, match="once each"):
        PromptMask(SHAPE, template=template)
