"""Layers as a set or a graph: a DeepSet over layer means, and message passing between them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs, States, StateShape

Graph = Literal["cayley", "full"]
Pool = Literal["mean", "sum"]

# (a, b, c, d) stands for the matrix [[a, b], [c, d]].
_GENERATORS = ((1, 1, 0, 1), (1, -1, 0, 1), (1, 0, 1, 1), (1, 0, -1, 1))


class _LayerNodes(Fusion):
    """One node a layer: `dropout(relu(W mean_t h_l + b))`, `hidden` wide."""

    needs = Needs.MEANS

    def __init__(self, shape: StateShape, *, first: int, hidden: int, dropout: float, pool: Pool) -> None:
        super().__init__()
        if hidden < 1 or not 0 <= dropout < 1:
            raise InputError(f"hidden={hidden}, dropout={dropout}: a width of 1 or more, a dropout in [0, 1).")
        self.layers = tuple(range(shape.index(first), shape.states))
        self.out_dim = hidden
        self.pool: Pool = pool
        self.project = nn.Sequential(nn.Linear(shape.dim, hidden), nn.ReLU(), nn.Dropout(dropout))

    def _nodes(self, states: States) -> Float[Tensor, "batch layers hidden"]:
        return self.project(torch.stack([states.mean(layer) for layer in self.layers], dim=1))

    def _pool(self, nodes: Float[Tensor, "batch layers hidden"]) -> Float[Tensor, "batch hidden"]:
        return nodes.mean(dim=1) if self.pool == "mean" else nodes.sum(dim=1)

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Counted from 0."""
        return name, {**params, "first": shape.index(params["first"])}


@register("set-encoder", paper="arXiv:2603.22665", learned=True)
class SetEncoder(_LayerNodes):
    """A DeepSet over layer means: `rho(mean_l phi(mean_t h_l))`; the order of layers is not seen.

    The Set-Encoder of Ulanovski et al. 2026, with `phi(x) = relu(V dropout(relu(W x + b)) + c)` and rho linear.
    Linear maps start as PyTorch's do, U(-1/sqrt(inputs), 1/sqrt(inputs)).

    Args:
        first: lowest state read; 0 is the embedding output.
        hidden: width of phi and of the vector; 256 as published.
        dropout: in training, after the first map; published 0 to 0.3 by search.
        pool: "mean" or "sum" over layers.

    Departures: the depth of phi and rho, that the embedding output takes part, and the one dropout are choices of
    ours.
    """

    def __init__(
        self, shape: StateShape, *, first: int = 0, hidden: int = 256, dropout: float = 0.1, pool: Pool = "mean"
    ) -> None:
        super().__init__(shape, first=first, hidden=hidden, dropout=dropout, pool=pool)
        self.phi = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.rho = nn.Linear(hidden, hidden)

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, hidden]`."""
        return self.rho(self._pool(self.phi(self._nodes(states))))


@register("layer-graph", paper="arXiv:2603.22665", learned=True)
class LayerGraph(_LayerNodes):
    """Layer means exchange messages on a graph: `h_i <- LN(MLP((1 + eps) h_i + sum_{j ~ i} h_j))`, then their mean.

    Ulanovski et al. 2026 (ILSE). Nodes start as `dropout(relu(W mean_t h_l + b))`; MLP is two linear maps with
    ReLU between. The Cayley graph is that of SL(2, Z_n) with the generators [[1, +-1], [0, 1]] and
    [[1, 0], [+-1, 1]] for the smallest n that has a node for every layer; nodes to spare start from 0, carry
    messages and are not pooled. Linear maps start as PyTorch's do, U(-1/sqrt(inputs), 1/sqrt(inputs)), eps from 0.

    Args:
        graph: "cayley", or "full": every layer with every other, no nodes to spare.
        steps: rounds of messages, each with weights of its own; published 1 or 2.
        first: lowest state read; 0 is the embedding output.
        hidden: width of nodes and of the vector; 256 as published.
        dropout: in training, on the nodes' start; published 0 to 0.3 by search.
        pool: "mean" or "sum" over layers.

    Departures: layers take the nodes in the order of their distance from the identity; eps is learned; below 7
    layers n is 2, where a generator is its own inverse and the graph a ring of 6; that the embedding output takes
    part and the one dropout are choices of ours.
    """

    adjacency: Tensor

    def __init__(
        self,
        shape: StateShape,
        *,
        graph: Graph = "cayley",
        steps: int = 1,
        first: int = 0,
        hidden: int = 256,
        dropout: float = 0.1,
        pool: Pool = "mean",
    ) -> None:
        super().__init__(shape, first=first, hidden=hidden, dropout=dropout, pool=pool)
        if steps < 1:
            raise InputError(f"layer-graph(steps={steps}): 1 or more.")
        count = len(self.layers)
        neighbours = smallest_cayley_graph(count) if graph == "cayley" else 1 - torch.eye(count)
        self.register_buffer("adjacency", neighbours, persistent=False)
        self.epsilon = nn.Parameter(torch.zeros(steps))
        self.updates = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden))
            for _ in range(steps)
        )

    def forward(self, states: States) -> Float[Tensor, "batch out"]:
        """Shape `[batch, hidden]`."""
        layers = self._nodes(states)
        spare = layers.new_zeros(len(layers), len(self.adjacency) - len(self.layers), self.out_dim)
        nodes = torch.cat([layers, spare], dim=1)
        for epsilon, update in zip(self.epsilon, self.updates, strict=True):
            nodes = update((1 + epsilon) * nodes + self.adjacency @ nodes)
        return self._pool(nodes[:, : len(self.layers)])


def smallest_cayley_graph(nodes: int) -> Float[Tensor, "size size"]:
    """The adjacency matrix of `cayley_graph(n)` for the smallest n with as many nodes or more."""
    modulus = 2
    while len(graph := cayley_graph(modulus)) < nodes:
        modulus += 1
    return graph


def cayley_graph(modulus: int) -> Float[Tensor, "size size"]:
    """The adjacency matrix of SL(2, Z_n)'s Cayley graph, nodes in the order of their distance from the identity."""
    identity = (1, 0, 0, 1)
    place = {identity: 0}
    edges = []
    for element in (queue := [identity]):
        for generator in _GENERATORS:
            other = _product(element, generator, modulus)
            if other not in place:
                place[other] = len(queue)
                queue.append(other)
            edges.append((place[element], place[other]))
    adjacency = torch.zeros(len(queue), len(queue))
    adjacency[tuple(zip(*edges, strict=True))] = 1
    return adjacency


_Matrix = tuple[int, int, int, int]


def _product(x: _Matrix, y: _Matrix, modulus: int) -> _Matrix:
    (a, b, c, d), (e, f, g, h) = x, y
    return (
        (a * e + b * g) % modulus,
        (a * f + b * h) % modulus,
        (c * e + d * g) % modulus,
        (c * f + d * h) % modulus,
    )
