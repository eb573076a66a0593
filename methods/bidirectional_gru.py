"""A bidirectional GRU over texts of different lengths, without packed sequences."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

# A GRU over a packed sequence cuts every time step out of the tokens of all texts, and on a processor the backward of
# each cut fills a tensor of the size of all of them: quadratic in time. Padded texts have no such cuts, and texts of
# similar length padded together waste little. Fewer a group waste less, but feed matrix products too few rows.
_GROUP = 64


class BidirectionalGRU(nn.Module):
    """What `nn.GRU(inputs, hidden, layers, bidirectional=True)` computes of each text alone.

    It has the weights of that, drawn in the same order from U(-1/sqrt(hidden), 1/sqrt(hidden)), in one GRU of one
    direction a layer and direction: forward and backward of layer 0, then of layer 1 ...
    """

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [inputs if layer == 0 else 2 * hidden for layer in range(layers) for _ in range(2)]
        self.directions = nn.ModuleList(nn.GRU(width, hidden) for width in widths)

    def forward(
        self, tokens: Float[Tensor, "real inputs"], lengths: Int[Tensor, " texts"]
    ) -> tuple[Float[Tensor, "real outputs"], Float[Tensor, "directions texts hidden"]]:
        """The top layer's output for each token, and the final states of every layer and direction.

        Args:
            tokens: of all texts, text after text, no padding.
            lengths: tokens of each text, 1 or more, on the same device.
        """
        starts = lengths.cumsum(dim=0) - lengths
        # A stable sort makes the groups a function of the lengths alone.
        order = lengths.sort(stable=True).indices
        outputs, finals, places = [], [], []
        for group in order.chunk(-(-len(order) // _GROUP)):
            steps = torch.arange(int(lengths[group[-1]]), device=tokens.device).unsqueeze(1)
            real = steps < lengths[group]
            # Behind its end a text goes on with its own first token, so that nothing of another text is read.
            place = starts[group] + steps * real
            output, final = self._read(tokens[place], lengths[group])
            outputs.append(output[real])
            finals.append(final)
            places.append(place[real])
        # Sorting a permutation gives its inverse.
        return torch.cat(outputs)[torch.cat(places).argsort()], torch.cat(finals, dim=1)[:, order.argsort()]

    def _read(
        self, tokens: Float[Tensor, "steps texts inputs"], lengths: Int[Tensor, " texts"]
    ) -> tuple[Float[Tensor, "steps texts outputs"], Float[Tensor, "directions texts hidden"]]:
        """The same for padded texts; behind the end of a text the output means nothing."""
        texts = torch.arange(len(lengths), device=tokens.device)
        steps = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        reverse = torch.where(steps < lengths, lengths - 1 - steps, steps)  # its own inverse
        finals = []
        for forward, backward in zip(self.directions[::2], self.directions[1::2], strict=True):
            ahead, _ = forward(tokens)
            back, _ = backward(tokens[reverse, texts])
            finals += [ahead[lengths - 1, texts], back[lengths - 1, texts]]
            tokens = torch.cat([ahead, back[reverse, texts]], dim=2)
        return tokens, torch.stack(finals)
