"""One layer's tokens into one vector: CLS, mean, max and their relatives."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from fusebench.methods import functional as F
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import LayerStates, Needs, States, StateShape


class _OneLayer(Fusion):
    """A pooling of state `layer`; -1 is the last block's output."""

    def __init__(self, shape: StateShape, *, layer: int = -1) -> None:
        super().__init__()
        self.layers = (shape.index(layer),)
        self.out_dim = shape.dim

    @property
    def layer(self) -> int:
        """The state that is pooled, counted from 0 = embedding output."""
        return self.layers[0]


@register("cls", paper="arXiv:1810.04805")
class Cls(_OneLayer):
    """First real token of one layer: `h[0]`, the CLS token where there is one.

    Devlin et al. 2019 (BERT). Departures: none.
    """

    needs = Needs.FIRSTS
    sweep_from = 1  # state 0 of CLS knows nothing of the text: the same token at the same position

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return states.first(self.layer)


@register("mean", paper="arXiv:1908.10084")
class Mean(_OneLayer):
    """Masked mean over the tokens of one layer: `sum_t m_t h_t / sum_t m_t`.

    Reimers and Gurevych 2019 (Sentence-BERT), MEAN strategy. Departures: none.
    """

    needs = Needs.MEANS

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return states.mean(self.layer)


@register("max", paper="arXiv:1908.10084")
class Max(_OneLayer):
    """Element-wise maximum over the real tokens of one layer: `max_t h_t`.

    Reimers and Gurevych 2019 (Sentence-BERT), MAX strategy. Departures: padding is -inf, never 0.
    """

    needs = Needs.TOKENS

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return F.masked_max(states.hidden[self.layer], states.mask)


@register("mean-sqrt-len", paper="https://github.com/huggingface/sentence-transformers")
class MeanSqrtLen(_OneLayer):
    """Sum over tokens divided by the root of their number: `sum_t m_t h_t / sqrt(sum_t m_t)`.

    The `mean_sqrt_len_tokens` mode of sentence-transformers. It differs from the mean by a positive factor a
    text, so cosine cannot tell the two apart. Departures: none.
    """

    needs = Needs.TOKENS

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        hidden = states.hidden[self.layer]
        weights = states.mask.to(F.accumulator(hidden.dtype))
        return F.weighted_sum(hidden, weights * weights.sum(dim=1, keepdim=True).rsqrt())

    @classmethod
    def same_direction(cls, params: dict[str, Any]) -> tuple[str, dict[str, Any], bool]:
        """The mean; the factor depends on the text's length."""
        return "mean", params, False


@register("weighted-mean", paper="arXiv:2202.08904")
class WeightedMean(_OneLayer):
    """Mean over tokens weighted by position: `sum_t t h_t / sum_t t`, t = 1, 2, ... over real tokens.

    Muennighoff 2022 (SGPT), equation 2: later tokens of a causal model have seen more. Departures: none.
    """

    needs = Needs.TOKENS

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        hidden = states.hidden[self.layer]
        weights = F.positions(states.mask).to(F.accumulator(hidden.dtype))
        return F.weighted_sum(hidden, weights / weights.sum(dim=1, keepdim=True))


@register("last-token", paper="arXiv:2201.10005")
class LastToken(_OneLayer):
    """Last real token of one layer, whichever side is padded.

    Neelakantan et al. 2022 (cpt-text): the usual choice for causal models. Departures: no end token is added;
    the last token is whatever the tokenizer puts last.
    """

    needs = Needs.TOKENS

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, dim]`."""
        return F.last_token(states.hidden[self.layer], states.mask)
