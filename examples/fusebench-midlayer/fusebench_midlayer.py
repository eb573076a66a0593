"""The mean over tokens of a layer in the middle, as a part that FuseBench finds when this package is installed."""

from __future__ import annotations

from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs, States, StateShape


@register("mid-layer", paper="arXiv:2502.02013")
class MidLayer(Fusion):
    """Mean over tokens of the layer at a share of the depth: `mean_t h_{round(depth L)}`.

    Skean et al. 2025 find that layers in the middle often embed better than the last one.

    Args:
        depth: 0 is the embedding output, 1 the last layer.

    Departures: the share of 1/2 is ours.
    """

    needs = Needs.MEANS

    def __init__(self, shape: StateShape, *, depth: float = 0.5) -> None:
        super().__init__()
        if not 0 <= depth <= 1:
            raise InputError(f"mid-layer(depth={depth}): a share of the layers is 0 to 1.")
        self.layers, self.out_dim = (round(depth * shape.blocks),), shape.dim

    def forward(self, states: States) -> Tensor:
        """Shape `[batch, dim]`."""
        return states.mean(self.layers[0])
