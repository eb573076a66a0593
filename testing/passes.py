"""What fusions and guides promise alike: they leave their input alone, and their gradients are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusebench.methods.parts import Fusion, Guide
from fusebench.methods.states import LayerStates, Needs
from fusebench.testing.made_up import SHAPE, Text, batch, by_block, tensors, with_gradients
from fusebench.testing.promises import require


def check_input_untouched(part: Fusion | Guide, texts: Sequence[Text], needs: Needs) -> None:
    """Asserts that a call writes into nothing that it was given."""
    states = batch(texts, needs)
    means = [states.mean(layer).clone() for layer in range(SHAPE.states)] if isinstance(part, Fusion) else []
    before = [tensor.clone() for tensor in tensors(states)]
    part(states)
    untouched = all(torch.equal(old, new) for old, new in zip(before, tensors(states), strict=True))
    untouched = untouched and all(torch.equal(mean, states.mean(layer)) for layer, mean in enumerate(means))
    require(untouched, "the input is untouched")


def is_some(gradient: Tensor | None) -> bool:
    """Whether a gradient is there, finite, and not 0 everywhere."""
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())


def gradcheck(part: Fusion | Guide, texts: Sequence[Text], weights: Mapping[str, Tensor]) -> None:
    """Asserts that gradients are those of finite differences; `texts` in float64."""
    leaves, states = with_gradients(batch(texts, part.needs))
    hidden = SHAPE.states

    def forward(*inputs: Tensor) -> Tensor:
        given = LayerStates(inputs[:hidden], states.mask, by_block(inputs[hidden : len(leaves)]), states.marker)
        named = dict(zip(weights, inputs[len(leaves) :], strict=True))
        result: Tensor = torch.func.functional_call(part, named, (given,))
        return result

    values = [weight.detach().clone().requires_grad_() for weight in weights.values()]
    try:
        torch.autograd.gradcheck(forward, (*leaves, *values), fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(
            f"broken promise: gradients are those of finite differences in float64: {error}"
        ) from error
