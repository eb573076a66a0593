"""PyTorch's own bidirectional GRU with the weights of ours, to be run over one unpadded text at a time."""

from torch import nn


def whole_gru(gru):
    """An `nn.GRU` in float64; takes `[tokens, inputs]`, gives `[tokens, 2 hidden]` and final states."""
    first = gru.directions[0]
    layers = len(gru.directions) // 2
    whole = nn.GRU(first.input_size, first.hidden_size, num_layers=layers, bidirectional=True).double()
    for place, one in enumerate(gru.directions):
        suffix = f"_l{place // 2}" + ("_reverse" if place % 2 else "")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(whole, name + suffix).data = getattr(one, f"{name}_l0").data.double()
    return whole
