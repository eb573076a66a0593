"""Texts a second beside `SentenceTransformer.encode`, and arithmetic a second beside bare matrix products.

    python scripts/speed_of_encoding.py --data-dir DATA [--short 3000] [--long 250] [--rounds 5]

Distinct sentences of the STS tasks and distinct documents of SciFact and ArguAna (cut at 256 tokens), mean pooling,
cold: tokenisation included, nothing cached. All variants run in turn in each round; ratios are taken within a round.
Vectors must agree within 1e-5 before anything is timed. "Products" are the linear layers' shapes alone, in as many
threads as the pass has, on as many tokens: by oneDNN, and by torch's own choice. The roofline is what the pass cannot
beat with these kernels: the linear layers by oneDNN and attention's two products in the pass's own batches, and
the memory traffic of residual sums and norms, as copies of as many bytes; without softmax, GELU and tokenisation.
Writes results/speed/speed_of_encoding.{json,md}.
"""

from __future__ import annotations

import argparse
import statistics
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import alternated, long_texts, machine, ratio, short_texts, shown, write
from sentence_transformers import SentenceTransformer

from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import DEFAULT, find_backbone
from fusebench.methods.batching import plan_batches
from fusebench.methods.engine import BATCH_TOKENS, PassStatistics, SharedPass
from fusebench.methods.grammar import parse
from fusebench.methods.onednn_linear import OneDNNLinear
from fusebench.study.freed_memory import keep_freed_memory

AGREEMENT = 1e-5
PEER_BATCHES = (8, 32)
Product = type[torch.nn.Linear]


def encode(backbone: Backbone, texts: Sequence[str]) -> tuple[np.ndarray, PassStatistics]:
    """Unit vectors of mean pooling, by a pass of its own."""
    shared = SharedPass(backbone, {"mean": parse("mean").build_fusion(backbone.shape)})
    rows = shared.rows(texts)
    vectors = shared.vectors("mean")[rows]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), shared.statistics


def products(backbone: Backbone, tokens: int, batch: int, kind: Product) -> Callable[[], None]:
    """The linear layers alone, over so many tokens."""
    layers = _linear_layers(backbone, kind)
    inputs = {layer.in_features: torch.randn(batch, layer.in_features) for layer in layers}

    def one(_: int) -> None:
        for layer in layers:
            layer(inputs[layer.in_features])

    return _in_threads(one, range(tokens // batch))


def roofline(backbone: Backbone, lengths: Sequence[int]) -> Callable[[], None]:
    """Linear layers, attention's products and the traffic between them, in the batches of a pass."""
    budget = BATCH_TOKENS["cpu"]
    blocks, dim, heads = backbone.shape.blocks, backbone.shape.dim, backbone.model.config.num_attention_heads
    layers = _linear_layers(backbone, OneDNNLinear)
    rows = {layer.in_features: torch.randn(budget, layer.in_features) for layer in layers}

    def one(batch: tuple[int, int]) -> None:
        texts, longest = batch
        for layer in layers:
            layer(rows[layer.in_features][: texts * longest])
        states = rows[dim][: texts * longest].reshape(texts * heads, longest, dim // heads)
        for _ in range(blocks):
            torch.bmm(torch.bmm(states, states.transpose(1, 2)), states)
            for _ in range(5):  # two sums of three, two norms of two: ten times the states are read or written
                states.clone()

    batches = [(len(b), max(lengths[i] for i in b)) for b in plan_batches(lengths, budget)]
    return _in_threads(one, batches)


def _linear_layers(backbone: Backbone, kind: Product) -> list[torch.nn.Linear]:
    return [kind(m.in_features, m.out_features) for m in backbone.model.encoder.modules() if _is_linear(m)]


def _in_threads(one: Callable[[Any], None], parts: Sequence[Any]) -> Callable[[], None]:
    """Works off the parts in as many threads as torch has, each part on one."""
    workers = torch.get_num_threads()

    def work() -> None:
        waiting = iter(parts)

        def some() -> None:
            torch.set_num_threads(1)
            with torch.inference_mode():
                for part in waiting:  # a step of the iterator is one for all threads
                    one(part)

        threads = [threading.Thread(target=some) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        torch.set_num_threads(workers)

    return work


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def attention_share(backbone: Backbone, lengths: Sequence[int]) -> float:
    """Operations of attention (`q k^T` and its product with v) over those of the linear layers."""
    weights = sum(m.in_features * m.out_features for m in backbone.model.encoder.modules() if _is_linear(m))
    per_pair = 2 * backbone.shape.blocks * backbone.shape.dim
    return per_pair * sum(length * length for length in lengths) / (weights * sum(lengths))


def measure(backbone: Backbone, stock: SentenceTransformer, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """All variants on these texts."""
    vectors, statistics_of_pass = encode(backbone, texts)
    theirs = stock.encode(list(texts), batch_size=32, normalize_embeddings=True)
    worst = float(np.abs(vectors - theirs).max())
    if worst > AGREEMENT:
        raise SystemExit(f"unit vectors differ by {worst:.1e}, so the two sides do not do the same work")
    tokens = statistics_of_pass.tokens
    lengths = [len(ids) for ids in backbone.tokenize(texts).ids]
    seconds = alternated(
        {
            "ours": lambda: encode(backbone, texts),
            **{f"batch {b}": lambda b=b: stock.encode(list(texts), batch_size=b) for b in PEER_BATCHES},
            "products by oneDNN": products(backbone, tokens, 1024, OneDNNLinear),
            "products by torch": products(backbone, tokens, 1024, torch.nn.Linear),
            "roofline": roofline(backbone, lengths),
        },
        rounds,
    )
    arithmetic = 1 + attention_share(backbone, lengths)
    bare = [s * arithmetic for s in seconds["products by oneDNN"]]
    best = min(PEER_BATCHES, key=lambda b: statistics.median(seconds[f"batch {b}"]))
    return {
        "texts": len(texts),
        "tokens": tokens,
        "padding": round(statistics_of_pass.padded_tokens / tokens - 1, 4),
        "largest_difference": worst,
        "texts_a_second": round(len(texts) / statistics.median(seconds["ours"]), 1),
        "to_batch_32": ratio(seconds["batch 32"], seconds["ours"]),
        "best_peer_batch": best,
        "to_best_batch": ratio(seconds[f"batch {best}"], seconds["ours"]),
        "of_products_by_onednn": ratio(bare, seconds["ours"]),
        "roofline_of_products": ratio(bare, seconds["roofline"]),
        "of_products_by_torch": ratio([s * arithmetic for s in seconds["products by torch"]], seconds["ours"]),
        "seconds": {name: [round(s, 3) for s in values] for name, values in seconds.items()},
    }


def main() -> None:
    """Measures, checks, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--short", type=int, default=3000)
    parser.add_argument("--long", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args()
    keep_freed_memory()
    source = find_backbone(DEFAULT)
    backbone, stock = Backbone(source), SentenceTransformer(str(source.folder), device="cpu")
    sets = {"short": short_texts(flags.data_dir, flags.short), "long": long_texts(flags.data_dir, flags.long)}
    found = {name: measure(backbone, stock, texts, flags.rounds) for name, texts in sets.items()}
    here = machine()
    table = [
        "# Encoding alone",
        "",
        f"{DEFAULT}, float32, mean pooling, {here['processor']}, {here['cores']} cores, {here['vectors']}, torch "
        f"{here['torch']}. Medians of {flags.rounds} rounds of all variants in turn, lowest and highest in brackets; "
        "the allocator keeps freed memory for both sides.",
        "",
        "| what | short texts | long texts |",
        "| --- | --- | --- |",
        *(f"| {what} | {cell(found['short'])} | {cell(found['long'])} |" for what, cell in _ROWS),
    ]
    write(flags.out, "speed_of_encoding", found, table)


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("texts (tokens, padding)", lambda f: f"{f['texts']} ({f['tokens']}, {f['padding']:.1%})"),
    ("largest difference of unit vectors", lambda f: f"{f['largest_difference']:.1e}"),
    ("texts/s over sentence-transformers, batch 32", lambda f: shown(f["to_batch_32"])),
    ("the same, its best batch", lambda f: f"{shown(f['to_best_batch'])}, batch {f['best_peer_batch']}"),
    ("arithmetic/s over bare products by oneDNN", lambda f: shown(f["of_products_by_onednn"])),
    ("what the roofline allows of it", lambda f: shown(f["roofline_of_products"])),
    ("arithmetic/s over bare products by torch", lambda f: shown(f["of_products_by_torch"])),
)


if __name__ == "__main__":
    main()
