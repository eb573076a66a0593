"""PromptBERT-style pooling: ask the model to fill a mask and read the answer's vector."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs, StateShape


@register("prompt-mask", paper="arXiv:2201.04337")
class PromptMask(Fusion):
    """Vector of the mask token in `This sentence of "X" means [MASK].`: `h[position of the mask]`.

    Jiang et al. 2022 (PromptBERT), the manual template without training. One template costs one more pass.
    For backbones with a mask token.

    Args:
        template: holds `{text}` and `{mask}` once each.
        layer: the state that is read.

    Departures: no template denoising; a long text is cut so that the template stays whole.
    """

    needs = Needs.TOKENS | Needs.MARKER

    def __init__(
        self,
        shape: StateShape,
        *,
        template: str = 'This sentence of "{text}" means {mask}.',
        layer: int = -1,
    ) -> None:
        super().__init__()
        if template.count("{text}") != 1 or template.count("{mask}") != 1:
            raise InputError(f"template '{template}' must hold {{text}} and {{mask}} once each.")
        self.template = template
        self.layers = (shape.index(layer),)
        self.out_dim = shape.dim

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        if states.marker is None:
            raise ValueError("prompt-mask reads states of a templated input; these come without a mark.")
        return F.token_at(states.hidden[self.layers[0]], states.marker)
