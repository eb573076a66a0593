"""The gradients of one batch: embeddings of its texts, the objective over them, the guides' penalties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from fusebench.methods.batching import plan_batches
from fusebench.methods.engine import BATCH_TOKENS
from fusebench.methods.process_group import ProcessGroup
from fusebench.methods.recipe import Recipe, mix
from fusebench.methods.row_batches import Rows
from fusebench.methods.seeding import seeded
from fusebench.methods.state_sources import StateSource, View
from fusebench.methods.trainee import Trainee


@dataclass(frozen=True)
class _Piece:
    """Texts that are embedded at once: their vectors, and what the guides say of their states."""

    vectors: Tensor
    penalties: Mapping[str, Tensor]
    statistics: Mapping[str, float]


class BatchGradients:
    """Adds the gradients of batches to the weights of methods.

    Args:
        source: of states.
        recipe: chunk size and number of batches an update.
        group: the processes that share each batch; None is this one alone.
    """

    def __init__(self, source: StateSource, recipe: Recipe, group: ProcessGroup | None = None) -> None:
        self.source, self.recipe, self.group = source, recipe, group

    def add(
        self,
        trainee: Trainee,
        stage: int,
        rows: Rows,
        batch: Int[np.ndarray, " batch"],
        *,
        noise: int,
        shared: dict[Any, Any],
        with_statistics: bool,
    ) -> dict[str, float]:
        """What the loss of a batch is made of, after its gradients were added.

        Args:
            trainee: the method.
            stage: whose objective counts.
            rows: of the stage.
            batch: row numbers.
            noise: seed of dropout and the like.
            shared: frozen states of this batch that other methods have read; filled here.
            with_statistics: whether the guides describe the attention maps too.
        """
        columns = rows.columns[:, batch]
        texts = columns.reshape(-1)
        parts = self._parts(texts)
        back = torch.from_numpy(np.concatenate(parts).argsort()).to(self.source.device)
        objective = trainee.objectives[stage]
        views: list[View] = [None] if objective.views == 1 else list(range(objective.views))
        pieces = [(view, texts[part]) for view in views for part in parts]
        mine = range(len(pieces)) if self.group is None else self.group.share(len(pieces))

        def embed(place: int, *, guided: bool = True) -> _Piece:
            view, numbers = pieces[place]
            share = len(numbers) / (len(texts) * len(views))
            with seeded(mix(noise, place), self.source.device):
                states = self._states(trainee, numbers, view, shared, (view, place % len(parts)))
                vectors = trainee.embed(states)
            guides = trainee.guides if guided else ()
            statistics = {
                f"{name}.{key}": share * value
                for name, guide in guides
                if with_statistics
                for key, value in guide.statistics(states).items()
            }
            return _Piece(vectors, {name: share * guide(states) for name, guide in guides}, statistics)

        def loss_of(own: Sequence[Tensor]) -> Tensor:
            vectors = own
            if self.group is not None:
                sizes, dim = [len(numbers) for _, numbers in pieces], trainee.fusion.out_dim
                vectors = self.group.gather(dict(zip(mine, own, strict=True)), sizes, dim, self.source.device)
            joined = (
                torch.cat(tuple(vectors[v * len(parts) : (v + 1) * len(parts)]))[back] for v in range(len(views))
            )
            embeddings = [column for view in joined for column in view.chunk(len(columns))]
            loss: Tensor = objective(embeddings, self._labels(rows, batch), self._groups(rows, batch))
            return loss

        factors = {name: guide.factor for name, guide in trainee.guides}
        backward = trainee.accelerator.backward
        if not (self.recipe.chunk or trainee.piecewise) or len(parts) == 1 or len(mine) < 2:
            made = [embed(place) for place in mine]
            loss = loss_of([piece.vectors for piece in made])
            if mine:
                backward((loss + _guided(made, factors)) / self.recipe.accumulate)
            elif trainee.accelerator.scaler is not None:
                # Other processes have all pieces; a scaler that has scaled nothing would refuse their gradients.
                trainee.accelerator.scaler.scale(loss)
            return self._terms(loss, made, factors)
        # One chunk's activations in memory at a time (GradCache, Gao et al. 2021, arXiv:2101.06983): all chunks are
        # embedded without gradients, the loss gives the gradient of each vector, and each chunk is embedded again,
        # under the same noise, to take it further.
        with torch.no_grad():
            leaves = [embed(place, guided=False).vectors.detach().requires_grad_() for place in mine]
        loss = loss_of(leaves)
        backward(loss / self.recipe.accumulate)
        made = []
        for place, leaf in zip(mine, leaves, strict=True):
            again = embed(place)
            gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad  # None: the objective left it out
            further = (again.vectors * gradient).sum() + self._scale(trainee) * _guided([again], factors)
            torch.autograd.backward(further)
            made.append(
                _Piece(leaf, {name: value.detach() for name, value in again.penalties.items()}, again.statistics)
            )
        return self._terms(loss, made, factors)

    def _terms(self, loss: Tensor, made: Sequence[_Piece], factors: Mapping[str, float]) -> dict[str, float]:
        """What is logged of a batch: the loss, and what the guides say of all its pieces."""
        told = _told(made)
        if self.group is not None and factors:
            told = self.group.sum_terms(told)
        return {"loss": float(loss.detach())} | told | {f"{name}.factor": factor for name, factor in factors.items()}

    def _parts(self, texts: Int[np.ndarray, " texts"]) -> list[Int[np.ndarray, " part"]]:
        """Places of the texts that are embedded at once: by length, so that little of a part is padding.

        The same for every source, because noise is drawn a part at a time.
        """
        lengths = self.source.lengths[texts]
        if self.recipe.chunk is not None:
            order = np.argsort(-lengths, kind="stable")
            return [order[start : start + self.recipe.chunk] for start in range(0, len(order), self.recipe.chunk)]
        return plan_batches(lengths, BATCH_TOKENS.get(self.source.device.type, 4096))

    def _states(
        self, trainee: Trainee, numbers: Int[np.ndarray, " texts"], view: View, shared: dict[Any, Any], key: Any
    ) -> Any:
        if self.source.trained is not None:
            return trainee.read(self.source, numbers, view)
        if key not in shared:
            shared[key] = trainee.read(self.source, numbers, view)
        return shared[key]

    def _scale(self, trainee: Trainee) -> float:
        """What `backward` multiplied the loss by, accumulation counted in."""
        scaler = trainee.accelerator.scaler
        return (1.0 if scaler is None else float(scaler.get_scale())) / self.recipe.accumulate

    def _labels(self, rows: Rows, batch: Int[np.ndarray, " batch"]) -> Tensor | None:
        return None if rows.labels is None else torch.from_numpy(rows.labels[batch]).float().to(self.source.device)

    def _groups(self, rows: Rows, batch: Int[np.ndarray, " batch"]) -> Tensor:
        return torch.from_numpy(rows.groups[batch]).to(self.source.device)


def _guided(made: Sequence[_Piece], factors: Mapping[str, float]) -> Tensor | float:
    """The penalties of the guides, weighted."""
    return sum((factors[name] * value for piece in made for name, value in piece.penalties.items()), 0.0)


def _told(made: Sequence[_Piece]) -> dict[str, float]:
    """Penalties and statistics of the guides, sums over the pieces."""
    told: dict[str, float] = {}
    for piece in made:
        for name, value in piece.penalties.items():
            told[f"{name}.penalty"] = told.get(f"{name}.penalty", 0.0) + float(value.detach())
        for name, number in piece.statistics.items():
            told[name] = told.get(name, 0.0) + number
    return told
