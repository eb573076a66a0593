"""The kinds of parts that a method is made of: fusions, objectives, guides, samplers, transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from fusebench.methods.states import LayerStates, Needs, StateShape

Reads = Literal["sentences", "pairs", "triplets", "scored-pairs"]


class Fusion(nn.Module, ABC):
    """How layer states become one vector: pure, never writes into its input.

    Constructors take the shape of the states, then hyper-parameters, keyword-only.

    Attributes:
        needs: what of the states it reads.
        layers: the states it reads, as non-negative numbers.
        out_dim: width of the vector.
        template: text with `{text}` and `{mask}` that inputs are put into, or None.
    """

    needs: ClassVar[Needs]
    layers: tuple[int, ...]
    out_dim: int
    template: str | None = None
    sweep_from: ClassVar[int] = 0  # the lowest state of `@each`

    @abstractmethod
    def forward(self, states: Any) -> Float[Tensor, "batch out"]:
        """The vectors of a batch; `states` offers what `needs` names."""

    def layer_shares(self, states: Any) -> dict[int, float]:
        """Mean share of each layer in the vectors of these texts; empty where a fusion does not weigh layers."""
        return {}

    @classmethod
    def simplest(cls, shape: StateShape, name: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The simplest spelling of the same fusion on a backbone of this shape.

        Args:
            shape: of the backbone.
            name: registered name.
            params: every hyper-parameter, defaults included.

        Returns:
            A registered name and its parameters; those equal to their defaults may be left in.
        """
        if "layer" in params:
            index = shape.index(params["layer"])
            params = {**params, "layer": -1 if index == shape.blocks else index}
        return name, params

    @classmethod
    def same_direction(cls, params: dict[str, Any]) -> tuple[str, dict[str, Any], bool] | None:
        """A fusion that gives every text the same direction, so the same cosine, or None.

        Returns:
            Its name, its parameters, and whether the ratio of lengths is one constant for all texts (then no
            transform can tell the two apart either).
        """
        return None


class Objective(nn.Module, ABC):
    """A training loss over a batch of rows; called outside of autocast, it computes in float32 or better.

    Constructors take hyper-parameters only, keyword-only.

    Attributes:
        reads: the kinds of rows it can be trained on, the best first; hyper-parameters may narrow them.
        views: how many differently noised encodings of each text it wants.
        own_learning_rate: learning rates of its own weights by name; such weights get no weight decay.
    """

    reads: tuple[Reads, ...]
    views: ClassVar[int] = 1
    own_learning_rate: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def forward(
        self,
        embeddings: Sequence[Float[Tensor, "rows dim"]],
        labels: Float[Tensor, " rows"] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            embeddings: one tensor a column of the rows (pairs: anchor, positive; triplets: anchor, positive,
                negative; scored pairs: left, right); of sentences one tensor a view.
            labels: of scored pairs, in [0, 1].
            groups: equal numbers mark rows with the same first text, for objectives that ask.
        """


class Guide(nn.Module, ABC):
    """A penalty on what happens inside the backbone while it trains: `(states) -> scalar`.

    Attributes:
        needs: what of the states it reads.
        factor: what its penalty is multiplied by before it is added to the loss.
        blocks: the blocks whose attention maps it reads, counted from 1; None are all.
    """

    needs: ClassVar[Needs]
    factor: float
    blocks: tuple[int, ...] | None = None

    @abstractmethod
    def forward(self, states: LayerStates) -> Float[Tensor, ""]:
        """The unweighted penalty of a batch."""

    def statistics(self, states: LayerStates) -> dict[str, float]:
        """Numbers that describe what the guide acts on, for the log of a training."""
        return {}


class Sampler(ABC):
    """In which order an epoch goes through the training rows; consecutive slices of it are the batches.

    Constructors take hyper-parameters only, keyword-only.
    """

    def wants_embeddings(self, epoch: int) -> bool:
        """Whether `order` needs the vectors of the first texts in this epoch, made by the method as it is by then."""
        return False

    @abstractmethod
    def order(
        self, epoch: int, texts: Sequence[str], embeddings: Float[np.ndarray, "rows dim"] | None, *, seed: int
    ) -> Int[np.ndarray, " rows"]:
        """A permutation of the rows.

        Args:
            epoch: the first is 0.
            texts: each row's first text.
            embeddings: of these texts, if `wants_embeddings`.
            seed: of the run; equal arguments give equal orders.
        """


class Transform(ABC):
    """A closed-form map of finished vectors, fitted on training texts only."""

    fitted: ClassVar[bool] = True  # whether it learns anything from the fit texts
    scale_free: ClassVar[bool] = False  # whether scaling all vectors by one factor leaves the cosines as they are

    @abstractmethod
    def out_dim(self, texts: int, dim: int) -> int:
        """Width of the result when fitted on `texts` vectors of `dim` dimensions.

        Raises:
            InputError: if it cannot be fitted on these.
        """

    @abstractmethod
    def fit(self, X: Float[np.ndarray, "texts dim"]) -> Transform:
        """Learns the map from vectors of the fit texts; returns itself."""

    @abstractmethod
    def __call__(self, X: Float[np.ndarray, "texts dim"]) -> Float[np.ndarray, "texts out"]:
        """The mapped vectors, float32."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """What `fit` learned, by name."""

    @abstractmethod
    def load_state(self, state: Mapping[str, np.ndarray]) -> Transform:
        """Takes over what another instance learned; returns itself."""
