"""A backbone pass in shards of whole batches, which give the same vectors wherever and however many they are.

A plan of batches has this property: planned alone, the inputs of some of its batches make the very same batches. So a
shard is an ordinary pass over the texts of its batches, and what the shards store, put together, is what one pass
would have stored, to the last bit on the same kind of processor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.batching import plan_batches
from fusebench.methods.engine import BATCH_TOKENS, PassStatistics, SharedPass
from fusebench.methods.parts import Fusion
from fusebench.methods.states import Needs, PooledStates

_SHARD_TOKENS = 2**22  # at most about so many in a shard: what a worker that dies has lost
_ROWS_AT_A_TIME = 512  # as the engine reads stored states: the last bits of a matrix product depend on its height
_POOLED = ((Needs.MEANS, "mean"), (Needs.FIRSTS, "first"))


@dataclass(frozen=True)
class PassIndex:
    """What goes through the backbone, and in which shards.

    Attributes:
        asked: texts, repetitions included.
        rows: which distinct input each distinct text is.
        firsts: the first text of each distinct input, by number.
        lengths: tokens of each distinct input.
        truncated: whether a distinct text was cut at the length limit.
        shards: the distinct inputs of each shard, in the order of its batches.
    """

    asked: int
    rows: Int[np.ndarray, " texts"]
    firsts: Int[np.ndarray, " inputs"]
    lengths: Int[np.ndarray, " inputs"]
    truncated: Bool[np.ndarray, " texts"]
    shards: tuple[Int[np.ndarray, " of_shard"], ...]

    def texts_of(self, shard: int, distinct: Sequence[str]) -> list[str]:
        """A text of each input of a shard."""
        return [distinct[number] for number in self.firsts[self.shards[shard]]]


def index_pass(
    backbone: Backbone, texts: Sequence[str], template: str | None, *, batch_tokens: int | None, workers: int
) -> PassIndex:
    """Tokenises all texts of a pass and deals its batches out in turn, so that shards cost about the same.

    Args:
        workers: there are at least so many shards, if there are so many batches; more where they would be large.

    Raises:
        InputError: if a text has no tokens.
    """
    distinct = list(dict.fromkeys(texts))
    tokenized = backbone.tokenize(distinct, template)
    row_of: dict[bytes, int] = {}
    rows = np.array([row_of.setdefault(ids.tobytes(), len(row_of)) for ids in tokenized.ids], dtype=np.int64)
    firsts = np.unique(rows, return_index=True)[1]
    lengths = np.array([len(tokenized.ids[number]) for number in firsts], dtype=np.int64)
    batches = plan_batches(lengths, batch_tokens or BATCH_TOKENS[backbone.device.type])
    count = min(len(batches), max(workers, math.ceil(lengths.sum() / _SHARD_TOKENS)))
    dealt = tuple(np.concatenate(batches[one::count]) for one in range(count))
    return PassIndex(len(texts), rows, firsts, lengths, np.array(tokenized.truncated, dtype=bool), dealt)


@dataclass(frozen=True)
class Shard:
    """What one shard's pass stored, a row an input.

    Attributes:
        pooled: states by kind ("mean", "first") and layer.
        live: vectors of the fusions that read tokens.
        failed: what went wrong in such a fusion.
        workers: batches in work at a time.
    """

    pooled: Mapping[tuple[str, int], Float[np.ndarray, "inputs dim"]]
    live: Mapping[str, Float[np.ndarray, "inputs out"]]
    failed: Mapping[str, str]
    statistics: PassStatistics
    workers: int


def encode_shard(
    backbone: Backbone, fusions: Mapping[str, Fusion], texts: Sequence[str], *, batch_tokens: int | None
) -> Shard:
    """Runs one shard's texts through the backbone.

    Raises:
        InputError: if one input alone does not fit into memory.
    """
    shared = SharedPass(backbone, fusions, batch_tokens=batch_tokens)
    shared.ensure(texts)
    pooled: dict[tuple[str, int], list[np.ndarray]] = {}
    for rows in _slices(len(texts)):
        states = shared.pooled(np.arange(rows.start, min(rows.stop, len(texts))))
        for kind, of_kind in (("mean", states.means), ("first", states.firsts)):
            for layer, tensor in of_kind.items():
                pooled.setdefault((kind, layer), []).append(tensor.cpu().numpy())
    live, failed = {}, {}
    for name in shared.live:
        try:
            live[name] = shared.vectors(name)
        except Exception as error:  # a third-party part can raise anything, and what it raises may not travel
            failed[name] = f"{type(error).__name__}: {error}"
    whole = {key: np.concatenate(pieces) for key, pieces in pooled.items()}
    return Shard(whole, live, failed, shared.statistics, shared.workers)


def statistics_of(index: PassIndex, shards: Iterable[PassStatistics]) -> PassStatistics:
    """The statistics of the whole pass; its seconds are those of all shards, one after the other."""
    whole = PassStatistics(
        texts=index.asked,
        distinct_texts=len(index.rows),
        distinct_inputs=len(index.lengths),
        truncated=int(index.truncated.sum()),
    )
    for one in shards:
        whole.tokens += one.tokens
        whole.padded_tokens += one.padded_tokens
        whole.batches += one.batches
        whole.seconds += one.seconds
        smallest = whole.effective_batch_tokens or one.effective_batch_tokens
        whole.effective_batch_tokens = min(smallest, one.effective_batch_tokens)
        for name, seconds in one.fusion_seconds.items():
            whole.fusion_seconds[name] = whole.fusion_seconds.get(name, 0.0) + seconds
    return whole


@dataclass
class MergedPass:
    """Finished shards, read as one pass; a text that the index does not know is run here.

    Attributes:
        fusions: those that are read, with one template.
        texts: of the index, repetitions included.
    """

    backbone: Backbone
    fusions: Mapping[str, Fusion]
    texts: Sequence[str]
    index: PassIndex
    shards: Sequence[Shard]
    batch_tokens: int | None = None
    statistics: PassStatistics = field(init=False)
    workers: int = field(init=False)

    def __post_init__(self) -> None:
        self.statistics = statistics_of(self.index, (shard.statistics for shard in self.shards))
        self.workers = max((shard.workers for shard in self.shards), default=1)
        self._distinct = list(dict.fromkeys(self.texts))
        self._row_of_text = dict(zip(self._distinct, self.index.rows.tolist(), strict=True))
        self._late: SharedPass | None = None

    def rows(self, texts: Sequence[str]) -> Int[np.ndarray, " texts"]:
        """Row of each text in what `vectors` returns; unknown texts are passed through the backbone first."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._row_of_text]
        if unknown:
            if self._late is None:
                self._late = SharedPass(self.backbone, self.fusions, batch_tokens=self.batch_tokens)
            rows = self._late.rows(unknown) + len(self.index.lengths)
            self._row_of_text.update(zip(unknown, rows.tolist(), strict=True))
        return np.fromiter((self._row_of_text[text] for text in texts), dtype=np.int64, count=len(texts))

    def truncated(self, texts: Iterable[str]) -> int:
        """How many distinct ones of these texts were cut at the length limit."""
        cut = {text for text, was_cut in zip(self._distinct, self.index.truncated, strict=True) if was_cut}
        return len(cut.intersection(texts))

    def token_share(self, texts: Iterable[str]) -> float:
        """The share of the pass's tokens that these texts' distinct inputs make up."""
        rows = list({self._row_of_text[text] for text in texts})
        return float(self.index.lengths[rows].sum() / max(1, self.index.lengths.sum()))

    @torch.inference_mode()
    def vectors(self, name: str, rows: Int[np.ndarray, " rows"] | None = None) -> Float[np.ndarray, "inputs out"]:
        """Float32 vectors of one fusion for these rows or for every distinct input, read-only.

        Raises:
            InputError: if the fusion failed in a shard.
        """
        fusion = self.fusions[name]
        if failed := next((shard.failed[name] for shard in self.shards if name in shard.failed), None):
            raise InputError(failed)
        found = (
            self._from_pooled(fusion) if fusion.needs.pooled else self._in_order([s.live[name] for s in self.shards])
        )
        if self._late is not None:
            found = np.concatenate([found, self._late.vectors(name)])
        found = found if rows is None else found[rows]
        found.flags.writeable = False
        return found

    def _from_pooled(self, fusion: Fusion) -> Float[np.ndarray, "inputs out"]:
        device = self.backbone.device
        fusion.to(device)
        stored = {
            kind: {
                layer: self._in_order([shard.pooled[kind, layer] for shard in self.shards])
                for layer in fusion.layers
                if flag in fusion.needs
            }
            for flag, kind in _POOLED
        }
        vectors = []
        for rows in _slices(len(self.index.lengths)):
            of_kind = {
                kind: {layer: torch.from_numpy(array[rows]).to(device) for layer, array in by_layer.items()}
                for kind, by_layer in stored.items()
            }
            vectors.append(fusion(PooledStates(of_kind["mean"], of_kind["first"])).cpu().numpy())
        return np.concatenate(vectors)

    def _in_order(self, pieces: Sequence[Float[np.ndarray, "of_shard dim"]]) -> Float[np.ndarray, "inputs dim"]:
        """The shards' rows in the order of the whole pass."""
        whole = np.empty((len(self.index.lengths), pieces[0].shape[1]), dtype=np.float32)
        for rows, piece in zip(self.index.shards, pieces, strict=True):
            whole[rows] = piece
        return whole


def _slices(rows: int) -> list[slice]:
    return [slice(start, start + _ROWS_AT_A_TIME) for start in range(0, max(rows, 1), _ROWS_AT_A_TIME)]
