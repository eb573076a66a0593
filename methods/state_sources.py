"""Where a training reads its layer states: stored pooled states, cached token states, or the backbone, live."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.batching import plan_batches
from fusebench.methods.engine import BATCH_TOKENS, Progress, SharedPass
from fusebench.methods.recipe import mix
from fusebench.methods.states import LayerStates, Needs

Kind = Literal["pooled states", "cached token states", "live states", "trained backbone"]
View = int | None  # None: without noise; 0 and 1: the two noisy views of frozen states
Numbers = Int[np.ndarray, " texts"]


@runtime_checkable
class StateSource(Protocol):
    """States of texts by number.

    Attributes:
        kind: what is read.
        numbers: number of each text.
        lengths: tokens of each text, by number.
        trained: the backbone that learns along; None when states are frozen.
        device: where the states are.
    """

    device: torch.device
    kind: Kind
    numbers: Mapping[str, int]
    lengths: Int[np.ndarray, " texts"]
    trained: Backbone | None

    def states(self, numbers: Numbers, view: View) -> Any:
        """States of these texts in this order, float32; with gradients if the backbone is trained."""
        ...


class PooledSource:
    """Means and first tokens from finished passes.

    Args:
        clean: a pass that holds every text.
        views: noisy passes by view.
        texts: numbered by their place.
    """

    kind: Kind = "pooled states"
    numbers: Mapping[str, int]
    trained: Backbone | None = None

    def __init__(self, clean: SharedPass, views: Mapping[int, SharedPass], texts: Sequence[str]) -> None:
        self.numbers = {text: number for number, text in enumerate(texts)}
        self._passes: dict[View, SharedPass] = {None: clean, **dict(views.items())}
        self._rows: dict[View, Numbers] = {None: clean.rows(texts)}
        self._texts = list(texts)
        self.lengths = clean.lengths(texts)
        self.device = clean.backbone.device

    def states(self, numbers: Numbers, view: View) -> Any:
        """Pooled states of these texts."""
        shared = self._passes[view]
        if view not in self._rows:
            self._rows[view] = shared.rows(self._texts)
        return shared.pooled(self._rows[view][numbers])


class LiveSource:
    """The backbone itself, run on each batch.

    Args:
        backbone: frozen, or a trainable copy.
        texts: numbered by their place.
        needs: what is read of the states.
        template: that texts are put into, or None.
        train: whether gradients go into the backbone.
        noise_seed: of the views of frozen states.
        map_blocks: blocks whose attention maps are read; None are all.
    """

    numbers: Mapping[str, int]

    def __init__(
        self,
        backbone: Backbone,
        texts: Sequence[str],
        needs: Needs,
        *,
        template: str | None = None,
        train: bool = False,
        noise_seed: int = 0,
        map_blocks: tuple[int, ...] | None = None,
    ) -> None:
        self.kind: Kind = "trained backbone" if train else "live states"
        self.trained = backbone if train else None
        self.device = backbone.device
        self.numbers = {text: number for number, text in enumerate(texts)}
        self._backbone, self._needs, self._noise_seed, self._blocks = backbone, needs, noise_seed, map_blocks
        tokenized = backbone.tokenize(list(texts), template)
        self._ids, self._marker = tokenized.ids, tokenized.marker
        self.lengths = np.array([len(ids) for ids in self._ids])

    def states(self, numbers: Numbers, view: View) -> LayerStates:
        """States of these texts; with gradients and dropout as the trained model is set, else frozen."""
        tokens, mask = self._backbone.pad([self._ids[n] for n in numbers])
        placed = self._placed(numbers, mask)
        if self.trained is not None:
            return self._backbone.forward(tokens, mask, self._needs, placed, map_blocks=self._blocks)
        with torch.no_grad(), self._noise(numbers, view):
            states = self._backbone.forward(tokens, mask, self._needs, placed)
        return LayerStates(tuple(state.float() for state in states.hidden), mask, None, placed)

    def _noise(self, numbers: Numbers, view: View) -> AbstractContextManager[None]:
        """Drawn anew for each batch: were it the same in all, a row could be told by its noise, not its text."""
        if view is None:
            return contextlib.nullcontext()
        return self._backbone.noisy(mix(self._noise_seed, view, *numbers.tolist()))

    def _placed(self, numbers: Numbers, mask: torch.Tensor) -> torch.Tensor | None:
        """Where the template's mask tokens stand once the texts are padded."""
        if self._marker is None:
            return None
        places = torch.from_numpy(self._marker[numbers]).to(mask.device)
        return places + mask.shape[1] - mask.sum(dim=1) if self._backbone.padding_side == "left" else places


class CachedTokenSource:
    """Token states of all layers that somebody reads, in one file on disk that goes away with the process.

    Args:
        live: where the states come from, once.
        layers: state numbers to keep.
        blocks: L; states 0 to L exist.
        dim: width of a state.
        views: noisy views to keep, beside the clean states.
        folder: where the file lies.
        batch_tokens: of the pass that fills it.
        progress: called after each batch of it.
    """

    kind: Kind = "cached token states"
    numbers: Mapping[str, int]
    trained: Backbone | None = None

    def __init__(
        self,
        live: LiveSource,
        *,
        layers: Sequence[int],
        blocks: int,
        dim: int,
        views: Sequence[View],
        folder: Path,
        batch_tokens: int = BATCH_TOKENS["cpu"],
        progress: Progress = lambda done, total: None,
    ) -> None:
        self.numbers, self.lengths = live.numbers, live.lengths
        self._layers, self._states, self._dim = tuple(layers), blocks + 1, dim
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.device = live.device
        # A file without a name: the system frees its room however the process ends.
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # lives as long as the source
            shape = (len(views), int(self._starts[-1]), len(self._layers), dim)
            if hasattr(os, "posix_fallocate"):  # a mapped file on a full disk would kill the process when written
                os.posix_fallocate(self._file.fileno(), 0, 4 * math.prod(shape))
            self._tokens = np.memmap(self._file, dtype=np.float32, mode="w+", shape=shape)
        except OSError as error:
            raise InputError(
                f"token states cannot be cached in {folder} ({error.strerror}); "
                "free some room, or give --state-cache-gb 0 to read the backbone live."
            ) from error
        self._place: dict[View, int] = {view: place for place, view in enumerate(views)}
        batches = [(view, batch) for view in views for batch in plan_batches(self.lengths, batch_tokens)]
        for done, (view, batch) in enumerate(batches, start=1):
            self._keep(live.states(batch, view), batch, view)
            progress(done, len(batches))

    @staticmethod
    def gigabytes(lengths: Numbers, layers: int, dim: int, views: int) -> float:
        """Room that the file takes."""
        return float(lengths.sum()) * layers * dim * views * 4 / 1e9

    def _keep(self, states: LayerStates, batch: Numbers, view: View) -> None:
        real = torch.stack([states.hidden[k][states.mask] for k in self._layers], dim=1).cpu().numpy()
        ends = np.cumsum(self.lengths[batch])
        for number, end in zip(batch, ends, strict=True):
            length = int(self.lengths[number])
            start = int(self._starts[number])
            self._tokens[self._place[view], start : start + length] = real[end - length : end]

    def states(self, numbers: Numbers, view: View) -> LayerStates:
        """States of these texts, padded on the right; layers that nobody reads are NaN."""
        lengths = self.lengths[numbers]
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        room = np.zeros((*mask.shape, len(self._layers), self._dim), dtype=np.float32)
        stored = self._tokens[self._place[view]]
        room[mask] = np.concatenate([stored[self._starts[n] : self._starts[n] + self.lengths[n]] for n in numbers])
        held = torch.from_numpy(room).to(self.device)
        nothing = torch.full((), torch.nan, device=self.device).expand(*mask.shape, self._dim)
        hidden = [nothing] * self._states
        for place, layer in enumerate(self._layers):
            hidden[layer] = held[:, :, place]
        return LayerStates(tuple(hidden), torch.from_numpy(mask).to(self.device))
