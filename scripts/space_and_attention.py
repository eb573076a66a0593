"""What trained methods do to the space of embeddings: alignment and uniformity (Wang and Isola 2020) on STS-B.

    python scripts/space_and_attention.py --data-dir DATA --out results --methods mean,cls

Reads every trained method in OUT/trained, and training-free ones by name, and writes OUT/space.md and OUT/space.json.
Alignment is the mean squared distance of the pairs with a score above 4, uniformity the logarithm of the mean of
exp(-2 d^2) over all pairs of texts; both on vectors of length 1 and lower is better (lower uniformity value: the
vectors are spread more evenly).
For trained backbones with guides the logged statistics of the attention maps are listed: first and last update.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
from tabulate import tabulate

import fusebench
from fusebench.study.saved_methods import is_saved, load


def alignment(left: np.ndarray, right: np.ndarray) -> float:
    """Mean squared distance of paired rows."""
    return float(np.square(left - right).sum(axis=1).mean())


def uniformity(vectors: np.ndarray) -> float:
    """`log mean exp(-2 |x - y|^2)` over all pairs of different rows."""
    distances = np.maximum(0.0, 2 - 2 * vectors @ vectors.T)
    upper = distances[np.triu_indices(len(vectors), k=1)]
    return float(np.log(np.exp(-2 * upper).mean()))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measure(method: str, backbone: str | None, pairs: list[dict]) -> tuple[float, float]:
    """Alignment and uniformity of one method."""
    encoder = fusebench.load(method, backbone=backbone)
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair["sentence1"], pair["sentence2"])))
    vectors = unit(encoder.encode(texts).astype(np.float64))
    place = {text: number for number, text in enumerate(texts)}
    close = [pair for pair in pairs if pair["score"] > 4]
    left, right = (vectors[[place[pair[side]] for pair in close]] for side in ("sentence1", "sentence2"))
    return alignment(left, right), uniformity(vectors)


def attention(log: Path) -> dict[str, tuple[float, float]]:
    """First and last logged value of each attention statistic of a training."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    updates = [event for event in events if "loss" in event]
    names = [name for name in updates[0] if "." in name and not name.endswith((".factor",))] if updates else []
    return {name: (updates[0][name], updates[-1][name]) for name in names if not name.startswith("layer_weight")}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--backbone")
    parser.add_argument("--methods", default="mean,cls")
    flags = parser.parse_args()
    lines = (flags.data_dir / "STSBenchmark" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for name in filter(None, flags.methods.split(",")):
        found[name, "training-free"].append(measure(name, flags.backbone, pairs))
    maps = []
    for folder in sorted(path for path in (flags.out / "trained").glob("*") if is_saved(path)):
        saved = load(folder)
        found[saved.method.name, saved.regime].append(measure(str(folder), flags.backbone, pairs))
        if saved.method.guides:
            log = flags.out / "training" / f"{folder.name}.jsonl"
            maps += [
                [saved.method.name, saved.seed, name, first, last] for name, (first, last) in attention(log).items()
            ]
    rows = [
        [name, regime, len(values), *(statistics.fmean(one[k] for one in values) for k in (0, 1))]
        for (name, regime), values in found.items()
    ]
    table = tabulate(
        rows, headers=["method", "regime", "seeds", "alignment", "uniformity"], tablefmt="github", floatfmt=".3f"
    )
    text = f"# Alignment and uniformity on STSBenchmark test\n\nLower is better in both.\n\n{table}\n"
    if maps:
        headers = ["method", "seed", "statistic", "first update", "last update"]
        text += "\n## Attention while training\n\n" + tabulate(
            maps, headers=headers, tablefmt="github", floatfmt=".4f"
        )
        text += "\n"
    (flags.out / "space.md").write_text(text, encoding="utf-8")
    held = {"space": rows, "attention": maps}
    (flags.out / "space.json").write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
