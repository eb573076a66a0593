"""Controls without layers: weights on the last layer alone, to tell what layers add from what weights add."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs, States, StateShape


def _start(module: nn.Module) -> None:
    """Linear maps from N(0, 0.02), biases from 0, as BERT starts."""
    for name, weight in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight.dim() > 1:  # a layer norm's weight stays 1
            nn.init.normal_(weight, std=0.02)


@register("mlp", paper="arXiv:2209.05972", learned=True)
class MLP(Fusion):
    """Two linear maps on the last layer's mean: `W_2 gelu(W_1 mean_t h_L + b_1) + b_2`.

    The control for `layer-attention` (Oh et al. 2022), by default with as many weights. Weights start from
    N(0, 0.02), biases from 0.

    Args:
        hidden: width between the maps; None is what brings the number of weights nearest to the 5 dim^2 + dim of
            `layer-attention`, about 2.5 dim.

    Departures: the control is ours.
    """

    needs = Needs.MEANS

    def __init__(self, shape: StateShape, *, hidden: int | None = None) -> None:
        super().__init__()
        dim = self.out_dim = shape.dim
        width = round(5 * dim**2 / (2 * dim + 1)) if hidden is None else hidden
        if width < 1:
            raise InputError(f"mlp(hidden={hidden}): 1 or more.")
        self.layers = (shape.blocks,)
        self.widen = nn.Linear(dim, width)
        self.narrow = nn.Linear(width, dim)
        _start(self)

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return self.narrow(nn.functional.gelu(self.widen(states.mean(self.layers[0]))))


@register("transformer-block", paper="arXiv:1810.04805", learned=True)
class TransformerBlock(Fusion):
    """One more BERT block on the last layer's tokens, then their mean: `mean_t Block(H_L)_t`.

    The control for fusions that read tokens: Devlin et al. 2019's block, `X = LN(H + MHA(H))` and
    `LN(X + W_2 gelu(W_1 X + b_1) + b_2)`. Weights start from N(0, 0.02), biases from 0.

    Args:
        heads: of the attention; None is one for every 64 dimensions.
        expansion: the feed-forward layer is this many times as wide as the vector.

    Departures: no dropout; the control is ours.
    """

    needs = Needs.TOKENS

    def __init__(self, shape: StateShape, *, heads: int | None = None, expansion: int = 4) -> None:
        super().__init__()
        dim = self.out_dim = shape.dim
        self.heads = max(1, dim // 64) if heads is None else heads
        if self.heads < 1 or expansion < 1 or dim % self.heads:
            raise InputError(
                f"transformer-block(heads={self.heads},expansion={expansion}): both 1 or more, and heads a divisor "
                f"of the backbone's {dim} dimensions."
            )
        self.layers = (shape.blocks,)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.widen = nn.Linear(dim, expansion * dim)
        self.narrow = nn.Linear(expansion * dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        _start(self)

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        H = states.hidden[self.layers[0]]
        X = self.attention_norm(H + self._attention(H, states))
        tokens = self.norm(X + self.narrow(nn.functional.gelu(self.widen(X))))
        return F.masked_mean(tokens, states.mask)

    def _attention(
        self, H: Float[Tensor, "batch tokens dim"], states: LayerStates
    ) -> Float[Tensor, "batch tokens dim"]:
        parts = self.query_key_value(H).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts  # [B, heads, T, dim / heads]
        scores = queries @ keys.mT / queries.shape[-1] ** 0.5
        scores = scores.to(F.accumulator(H.dtype)).masked_fill(~states.mask[:, None, None, :], -float("inf"))
        weights = scores.softmax(dim=-1).to(H.dtype)
        return self.output((weights @ values).transpose(1, 2).flatten(start_dim=2))
