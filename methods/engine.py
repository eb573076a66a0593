"""One pass, many fusions: every frozen method of a run reads the same forward pass of the backbone.

Each distinct tokenised input goes through the backbone once, whichever texts, tasks and methods ask for it.
Fusions that are content with pooled states read stored vectors afterwards; the others work on the live batch.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import reduce
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.batching import plan_batches
from fusebench.methods.parts import Fusion
from fusebench.methods.recipe import mix
from fusebench.methods.row_arrays import IN_MEMORY, RowArrays
from fusebench.methods.states import LayerStates, Needs, PooledStates

# Tokens in a batch. On a processor small batches stay in cache; a GPU wants many.
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 4096}

_TOKENIZED = 1 << 14  # texts at a time

_POOLED = ((Needs.MEANS, "mean"), (Needs.FIRSTS, "first"))

Progress = Callable[[int, int], None]  # tokens done, tokens in all
Arrays = Mapping[tuple[str, str | int], np.ndarray]  # by ("mean" or "first", layer) or ("live", name); a row an input

# What a batch may hold on a device for a backbone, in tokens, once this process has seen memory run out there.
_fitting: dict[tuple[str, str, str], int] = {}


@dataclass
class PassStatistics:
    """What the pass did so far."""

    texts: int = 0  # asked for, repetitions included
    distinct_texts: int = 0
    distinct_inputs: int = 0  # after tokenisation: what the backbone really saw
    truncated: int = 0  # of the distinct texts
    tokens: int = 0
    padded_tokens: int = 0
    batches: int = 0
    seconds: float = 0.0
    effective_batch_tokens: int = 0  # smaller than asked for after running out of memory
    fusion_seconds: dict[str, float] = field(default_factory=dict)  # of the live fusions, inside the pass


@runtime_checkable
class Journal(Protocol):
    """Keeps what a pass has finished where the same command finds it after it was killed."""

    def restore(
        self,
        inputs: Sequence[np.ndarray],
        markers: np.ndarray | None,
        arrays: Arrays,
        statistics: PassStatistics,
    ) -> np.ndarray:
        """Fills the rows of these inputs that are kept, adds what they took; a bool an input: whether it is there."""
        ...

    def keep(self, batch: np.ndarray, arrays: Callable[[], Arrays], statistics: PassStatistics) -> None:
        """Takes note that these rows are filled, in all arrays that hold no failed fusion's; called by any worker."""
        ...

    def flush(self, arrays: Callable[[], Arrays], statistics: PassStatistics) -> None:
        """The pass ends here, finished or not."""
        ...


class SharedPass:
    """The vectors of all given fusions for any text, each distinct input having gone through once.

    Args:
        backbone: frozen.
        fusions: by name; all with the same template.
        batch_tokens: budget of a batch, None for the device's default.
        workers: batches in work at a time, each on one thread; None is torch's thread count on a processor, 2 on CUDA
            and 1 elsewhere. Results do not depend on it.
        progress: called after each batch.
        noise_seed: runs the backbone with its dropout on, one batch after the other; None is without noise.
        journal: keeps finished batches for the same command after a kill.
        in_memory: bytes of stored states and vectors; more of them lie in temporary files.
    """

    def __init__(
        self,
        backbone: Backbone,
        fusions: Mapping[str, Fusion],
        *,
        batch_tokens: int | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
        noise_seed: int | None = None,
        journal: Journal | None = None,
        in_memory: int = IN_MEMORY,
    ) -> None:
        templates = {fusion.template for fusion in fusions.values()}
        if len(templates) != 1:
            raise ValueError("the fusions of one pass share one template; make a pass for each")
        self.backbone = backbone
        self.template = templates.pop()
        dtype = next(backbone.model.parameters()).dtype
        # Live heads read states as they are, pooled ones read them from the store, which is float32.
        self.fusions = {
            name: fusion.to(backbone.device, None if fusion.needs.pooled else dtype)
            for name, fusion in fusions.items()
        }
        self.live = {name: fusion for name, fusion in fusions.items() if not fusion.needs.pooled}
        self.needs = reduce(lambda a, b: a | b, (fusion.needs for fusion in fusions.values()))
        kind = backbone.device.type
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(kind, 4096)
        # On CUDA one batch is padded, sent and stored while the other computes.
        self.workers = workers or {"cpu": torch.get_num_threads(), "cuda": 2}.get(kind, 1)
        if noise_seed is not None:
            self.workers = 1  # the generator that noise is drawn from belongs to the process
        self._noise_seed = noise_seed
        self._journal = journal
        self.progress = progress or (lambda done, total: None)
        self._memory_of = (str(backbone.device), backbone.source.weights_sha256, str(dtype))
        fitting = min(self.batch_tokens, _fitting.get(self._memory_of, self.batch_tokens))
        self.statistics = PassStatistics(effective_batch_tokens=fitting)
        self.statistics.fusion_seconds = dict.fromkeys(self.live, 0.0)
        self._input_of_text: dict[str, int] = {}
        self._truncated_texts: set[str] = set()
        self._row_of_input: dict[bytes, int] = {}
        self._lengths: list[int] = []
        self._arrays: RowArrays[tuple[str, str | int]] = RowArrays(in_memory=in_memory)
        self._failed: dict[str, Exception] = {}
        self._lock = threading.Lock()
        self._whole = threading.Lock()  # no vectors are made of rows that a late text has added and not filled yet
        self._since = 0.0
        self._grow(0)

    def ensure(self, texts: Iterable[str]) -> None:
        """Runs the backbone over those texts that it has not seen yet.

        Raises:
            InputError: if a text has no tokens, or one input alone does not fit into memory.
        """
        with self._whole:
            self._since = time.perf_counter()
            texts = list(texts)
            new = [text for text in dict.fromkeys(texts) if text not in self._input_of_text]
            before = len(self._row_of_input)
            try:
                inputs, markers = self._distinct_inputs(new)
                if inputs:
                    self._grow(len(inputs))
                    self._run(inputs, markers, offset=before)
            except BaseException:
                self._forget(new, before)
                raise
            self.statistics.texts += len(texts)
            self.statistics.distinct_texts += len(new)
            self.statistics.truncated += len(self._truncated_texts.intersection(new))
            self.statistics.distinct_inputs += len(inputs)
            self._tick()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.statistics.seconds += now - self._since
        self._since = now

    def _forget(self, texts: Iterable[str], rows: int) -> None:
        """Goes back to the first `rows` rows, because those that a failed pass left unfilled must never be read."""
        for text in texts:
            self._input_of_text.pop(text, None)
        self._truncated_texts.difference_update(texts)
        self._row_of_input = {key: row for key, row in self._row_of_input.items() if row < rows}
        del self._lengths[rows:]
        self._arrays.cut(rows)

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """Row of each text in what `vectors` returns; unseen texts are passed through the backbone first."""
        if any(text not in self._input_of_text for text in texts):
            self.ensure(texts)
        return np.fromiter((self._input_of_text[text] for text in texts), dtype=np.int64, count=len(texts))

    def truncated(self, texts: Iterable[str]) -> int:
        """How many distinct ones of these texts were cut at the length limit."""
        return len(self._truncated_texts.intersection(texts))

    def token_share(self, texts: Iterable[str]) -> float:
        """The share of the pass's tokens that these texts' distinct inputs make up."""
        rows = {self._input_of_text[text] for text in texts}
        return sum(self._lengths[row] for row in rows) / max(1, sum(self._lengths))

    @torch.inference_mode()
    def vectors(self, name: str, rows: np.ndarray | None = None) -> Float[np.ndarray, "inputs out"]:
        """Float32 vectors of one fusion, read-only: they may be the stored ones.

        Args:
            name: of the fusion.
            rows: of which inputs; None for every distinct input so far.
        """
        with self._whole:
            if name in self._failed:
                raise self._failed[name]
            if name in self.live:
                vectors = self._arrays.read(("live", name), slice(None) if rows is None else rows).view()
            else:
                fusion = self.fusions[name]
                chunks = _in_chunks(len(self._row_of_input) if rows is None else len(rows))
                parts: list[slice | np.ndarray] = [chunk if rows is None else rows[chunk] for chunk in chunks]
                vectors = np.concatenate([fusion(self._pooled(fusion, part)).cpu().numpy() for part in parts])
        vectors.flags.writeable = False
        return vectors

    def pooled(self, rows: np.ndarray) -> PooledStates:
        """All stored pooled states of these rows."""
        stored: dict[str, dict[int, torch.Tensor]] = {kind: {} for _, kind in _POOLED}
        for kind, key in self._arrays:
            if kind in stored:
                states = torch.from_numpy(self._arrays.read((kind, key), rows))
                stored[kind][int(key)] = states.to(self.backbone.device)
        return PooledStates(stored["mean"], stored["first"])

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text, after cutting."""
        return np.asarray(self._lengths, dtype=np.int64)[self.rows(texts)]

    def _pooled(self, fusion: Fusion, rows: slice | np.ndarray) -> PooledStates:
        stored = {
            kind: {
                layer: torch.from_numpy(self._arrays.read((kind, layer), rows)).to(self.backbone.device)
                for layer in fusion.layers
                if flag in fusion.needs
            }
            for flag, kind in _POOLED
        }
        return PooledStates(stored["mean"], stored["first"])

    def _distinct_inputs(self, texts: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray | None]:
        inputs, markers = [], []
        for chunk in _in_chunks(len(texts), _TOKENIZED):  # what a tokenizer says of a text takes some 10 KB
            part = texts[chunk]
            tokenized = self.backbone.tokenize(part, self.template)
            self._truncated_texts.update(t for t, cut in zip(part, tokenized.truncated, strict=True) if cut)
            kept = []
            for place, (text, ids) in enumerate(zip(part, tokenized.ids, strict=True)):
                key = ids.tobytes()
                if key not in self._row_of_input:
                    self._row_of_input[key] = len(self._row_of_input)
                    inputs.append(ids)
                    self._lengths.append(len(ids))
                    kept.append(place)
                self._input_of_text[text] = self._row_of_input[key]
            if tokenized.marker is not None:
                markers.append(tokenized.marker[kept])
        return inputs, np.concatenate(markers) if markers else None

    def _grow(self, count: int) -> None:
        """Makes room for `count` more rows in every array that some fusion reads or fills."""
        widths: dict[tuple[str, str | int], int] = {}
        for name, fusion in self.fusions.items():
            if name in self.live:
                widths["live", name] = fusion.out_dim
                continue
            for flag, kind in _POOLED:
                if flag in fusion.needs:
                    widths.update({(kind, layer): self.backbone.shape.dim for layer in fusion.layers})
        self._arrays.grow(widths, count)

    def _run(self, inputs: list[np.ndarray], markers: np.ndarray | None, offset: int) -> None:
        lengths = [len(ids) for ids in inputs]
        total = self.statistics.tokens + sum(lengths)
        restored = self._restored(inputs, markers, offset)
        self.statistics.tokens += sum(length for length, done in zip(lengths, restored, strict=True) if done)
        waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        for batch in plan_batches(lengths, self.batch_tokens):
            if not restored[batch].all():
                waiting.put(batch)
        failures: list[BaseException] = []

        def work() -> None:
            while not failures:
                try:
                    batch = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    with self._noise(int(batch[0]) + offset):
                        self._run_batch(batch, inputs, markers, offset)
                    with self._lock:
                        self._tick()
                        self.statistics.tokens += sum(lengths[i] for i in batch if not restored[i])
                        self.progress(self.statistics.tokens, total)
                    if self._journal is not None:
                        self._journal.keep(batch, lambda: self._sound(offset), self.statistics)
                except BaseException as error:
                    failures.append(error)
                    return

        try:
            self._in_threads(work, failures)
        finally:
            if self._journal is not None:
                self._journal.flush(lambda: self._sound(offset), self.statistics)
        if failures:
            raise failures[0]

    def _restored(self, inputs: list[np.ndarray], markers: np.ndarray | None, offset: int) -> np.ndarray:
        """Which of the inputs an earlier run of the same command has finished; their rows are filled."""
        if self._journal is None:
            return np.zeros(len(inputs), dtype=bool)
        return self._journal.restore(inputs, markers, self._sound(offset), self.statistics)

    def _noise(self, row: int) -> AbstractContextManager[None]:
        """Drawn anew for each batch, which is told by its first row: it depends on no batch before it."""
        return (
            contextlib.nullcontext() if self._noise_seed is None else self.backbone.noisy(mix(self._noise_seed, row))
        )

    def _sound(self, offset: int) -> Arrays:
        """The arrays from a row on, without those of fusions that failed."""
        return {key: array for key, array in self._arrays.since(offset).items() if key[1] not in self._failed}

    def _in_threads(self, work: Callable[[], None], failures: list[BaseException]) -> None:
        def on_one_thread() -> None:
            torch.set_num_threads(1)
            work()

        threads = [threading.Thread(target=on_one_thread, daemon=True) for _ in range(self.workers)]
        before = torch.get_num_threads()
        try:
            for thread in threads:
                thread.start()
            _wait_for(threads)
        except BaseException as error:  # Ctrl-C lands here: the workers stop after their batch
            failures.append(error)
            _wait_for(threads)
            raise
        finally:
            torch.set_num_threads(before)

    def _run_batch(
        self, batch: np.ndarray, inputs: list[np.ndarray], markers: np.ndarray | None, offset: int
    ) -> None:
        """One batch; halves it as long as it does not fit into memory, or is known not to."""
        longest = max(len(inputs[i]) for i in batch)
        if len(batch) > 1 and len(batch) * longest > self.statistics.effective_batch_tokens:
            self._run_halves(batch, inputs, markers, offset)
            return
        try:
            states = self.backbone.states(
                [inputs[i] for i in batch], self.needs, None if markers is None else markers[batch]
            )
            self._keep(states, batch + offset)
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise InputError(
                    f"one input of {longest} tokens does not fit into memory: give a smaller "
                    f"--max-length; with {self.workers} batches at a time, a smaller --batch-tokens helps too."
                ) from error
        else:
            with self._lock:
                self.statistics.batches += 1
                self.statistics.padded_tokens += states.mask.numel()
            return
        # Outside the except clause, so that the failed batch's tensors are gone before the halves run.
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()
        with self._lock:
            smaller = min(self.statistics.effective_batch_tokens, len(batch) // 2 * longest)
            self.statistics.effective_batch_tokens = smaller
            _fitting[self._memory_of] = min(smaller, _fitting.get(self._memory_of, smaller))
        self._run_halves(batch, inputs, markers, offset)

    def _run_halves(
        self, batch: np.ndarray, inputs: list[np.ndarray], markers: np.ndarray | None, offset: int
    ) -> None:
        half = len(batch) // 2
        self._run_batch(batch[:half], inputs, markers, offset)
        self._run_batch(batch[half:], inputs, markers, offset)

    @torch.inference_mode()
    def _keep(self, states: LayerStates, rows: np.ndarray) -> None:
        """Stores what the fusions asked for: pooled states, and the vectors of live fusions."""
        for kind, key in self._arrays:
            if kind == "live":
                self._keep_live(str(key), states, rows)
            else:
                pooled = states.mean(int(key)) if kind == "mean" else states.first(int(key))
                self._arrays.write((kind, key), rows, pooled.float().cpu().numpy())

    def _keep_live(self, name: str, states: LayerStates, rows: np.ndarray) -> None:
        """One live fusion on one batch; an error is kept for whoever asks for its vectors, and the others go on."""
        if name in self._failed:
            return
        started = time.perf_counter()
        try:
            self._arrays.write(("live", name), rows, self.live[name](states).float().cpu().numpy())
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._failed[name] = error
        with self._lock:
            self.statistics.fusion_seconds[name] += time.perf_counter() - started


def _in_chunks(rows: int, size: int = 512) -> list[slice]:
    """Slices that cover so many rows; at least one, so that no rows give an empty result of the right width.

    Small, because a fusion may need hundreds of vectors a text on its way (the latents of multi-layer-latents).
    """
    return [slice(start, start + size) for start in range(0, max(rows, 1), size)]


def _wait_for(threads: Sequence[threading.Thread]) -> None:
    # In short naps: a join without end is not always interrupted by Ctrl-C (handlers that restart system calls).
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=0.1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says, in one of torch's or Python's ways, that there is no memory left."""
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(s in str(error).lower() for s in signs)
