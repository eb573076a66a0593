"""Small random layer states: ragged rows, one text of a single token, large values in the padding."""

import torch

from fusebench.methods.states import LayerStates, StateShape

SHAPE = StateShape(blocks=4, dim=6)
LENGTHS = (3, 1, 5)


def make(side="right", shape=SHAPE, lengths=LENGTHS):
    """States in float64, and the real part `[states, tokens, dim]` of each row."""
    generator = torch.Generator().manual_seed(2)
    width = max(lengths) + 1
    hidden = torch.randn(shape.states, len(lengths), width, shape.dim, generator=generator, dtype=torch.float64)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, slice(0, length) if side == "right" else slice(width - length, width)] = True
    hidden = torch.where(mask.unsqueeze(-1), hidden, 1e4 * hidden)
    return LayerStates(hidden.unbind(), mask), [hidden[:, row, mask[row]] for row in range(len(lengths))]


def stirred(fusion, scale=0.5):
    """The fusion in float64 and evaluation, every weight moved, so that none hides behind a 0 or a tiny start."""
    generator = torch.Generator().manual_seed(3)
    for weight in fusion.double().parameters():
        weight.data += scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return fusion.eval()


def permuted(states, order):
    """The same texts with state `order[k]` in the place of state k."""
    return LayerStates(tuple(states.hidden[k] for k in order), states.mask)


def count(fusion):
    """Numbers to learn."""
    return sum(weight.numel() for weight in fusion.parameters())


def assert_equal(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
