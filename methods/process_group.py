"""The processes that share one training: each embeds its part of a batch, all see the whole batch's loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fusebench.methods.parts import Sampler
from fusebench.methods.shuffling import Order


class LostProcessError(RuntimeError):
    """Another process of the group is gone, or cannot be reached; why is known where it ended."""


class ProcessGroup:
    """The group that torch.distributed has set up, as one of its processes sees it.

    Attributes:
        rank: which of them this is, from 0 on.
        size: how many there are.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, count: int) -> range:
        """Which of so many parts of a batch, in order of length, this process embeds."""
        return range(self.rank, count, self.size)

    def gather(
        self, own: Mapping[int, Float[Tensor, "_ dim"]], rows: Sequence[int], dim: int, device: torch.device
    ) -> list[Float[Tensor, "_ dim"]]:
        """The vectors of all parts, so that rows of every process are each other's negatives.

        Gradients go into this process's own vectors alone. As each process computes the loss of the whole batch, the
        gradients of its weights are those of its own rows, and their sum over the processes is that of one process.

        Args:
            own: vectors of this process by part, float32.
            rows: of each part.
            dim: of a vector.
            device: where they are.
        """
        whole = torch.zeros(sum(rows), dim, device=device)
        parts = list(torch.split(whole, list(rows)))
        for number, vectors in own.items():
            parts[number].copy_(vectors.detach())
        self._reduce(whole)  # a sum with zeros
        return [own.get(number, part) for number, part in enumerate(parts)]

    def sum_gradients(self, weights: Sequence[nn.Parameter], whole: Iterable[nn.Parameter]) -> None:
        """Gives every process the gradients of the whole batch, to the same bits.

        Args:
            weights: all that learn.
            whole: those among them whose gradient is that of the whole batch already, in each process.
        """
        if self.rank:
            for weight in whole:
                weight.grad = None
        # A weight that no text has used has no gradient, in one process as in several: its optimizer leaves it alone.
        used = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32).to(weights[0].device)
        self._reduce(used, largest=True)
        learning = [weight for weight, some in zip(weights, used.tolist(), strict=True) if some]
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in learning]
        summed = parameters_to_vector(gradients)
        self._reduce(summed)
        vector_to_parameters(summed, gradients)
        for weight, gradient in zip(learning, gradients, strict=True):
            weight.grad = gradient

    def sum_terms(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Sums over the processes, by name; one that lacks a name adds nothing to it."""
        found: list[dict[str, float]] = [{}] * self.size
        with reachable():
            dist.all_gather_object(found, dict(terms))
        names = dict.fromkeys(name for one in found for name in one)
        return {name: sum(one.get(name, 0.0) for one in found) for name in names}

    def from_first(self, numbers: Tensor) -> Tensor:
        """What the first process has, in all of them; changed in place."""
        with reachable():
            dist.broadcast(numbers, src=0)
        return numbers

    def _reduce(self, numbers: Tensor, *, largest: bool = False) -> None:
        with reachable():
            dist.all_reduce(numbers, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)


class SharedOrder(Sampler):
    """A sampler that the first process asks alone, so that all go through the rows in the same order.

    Two devices could make vectors that differ in the last bit, and orders that are made of them could then differ.

    Args:
        sampler: that is asked.
        group: of this process.
        device: that the group's processes talk through.
    """

    def __init__(self, sampler: Sampler, group: ProcessGroup, device: torch.device) -> None:
        self.sampler, self.group, self.device = sampler, group, device

    def wants_embeddings(self, epoch: int) -> bool:
        """In the first process, where the sampler does."""
        return self.group.rank == 0 and self.sampler.wants_embeddings(epoch)

    def order(
        self, epoch: int, texts: Sequence[str], embeddings: Float[np.ndarray, "rows dim"] | None, *, seed: int
    ) -> Order:
        """The sampler's order."""
        found = torch.empty(len(texts), dtype=torch.int64)
        if self.group.rank == 0:
            found = torch.from_numpy(
                np.array(self.sampler.order(epoch, texts, embeddings, seed=seed), dtype=np.int64)
            )
        return self.group.from_first(found.to(self.device)).cpu().numpy()


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Within, the errors of torch.distributed are told from those of the training itself."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(str(error)) from error
