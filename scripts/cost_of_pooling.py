"""What pooling every layer in every way costs beside one pooling, and one more method beside the pass.

    python scripts/cost_of_pooling.py --data-dir DATA [--texts 2000] [--rounds 5]

The backbone reads distinct sentences of the STS tasks once for: `mean` alone; every layer's mean and first token; and
all methods of the catalogue that are content with those. The pass is cold in each round; making the methods' vectors
from the stored states is counted with it. Writes results/speed/cost_of_pooling.{json,md}.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from measuring import alternated, machine, ratio, short_texts, shown, write

from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import DEFAULT, find_backbone
from fusebench.methods.engine import SharedPass
from fusebench.methods.grammar import parse
from fusebench.methods.parts import Fusion
from fusebench.study.catalogue import CATALOGUE, expand
from fusebench.study.freed_memory import keep_freed_memory


def pooled_methods(backbone: Backbone) -> dict[str, Fusion]:
    """The catalogue's fusions that read pooled states, once each; learned ones with their weights as drawn."""
    fusions = {}
    for entry in CATALOGUE:
        method = parse(expand(entry.sentence, backbone.source.folder))
        fusion = method.build_fusion(backbone.shape)
        if fusion.needs.pooled:
            fusions[str(method.fusion)] = fusion
    return fusions


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    flags = parser.parse_args()
    keep_freed_memory()
    backbone = Backbone(find_backbone(DEFAULT))
    texts = short_texts(flags.data_dir, flags.texts)
    states = range(backbone.shape.states)
    every = {f"{kind}(layer={k})": kind for k in states for kind in ("mean", "cls")}
    methods = pooled_methods(backbone)

    vector_seconds: dict[str, list[float]] = {name: [] for name in methods}

    def work(fusions: Mapping[str, Fusion]) -> None:
        shared = SharedPass(backbone, fusions)
        shared.ensure(texts)
        for name in fusions:
            started = time.perf_counter()
            shared.vectors(name)
            if fusions is methods:
                vector_seconds[name].append(time.perf_counter() - started)

    one = {"mean": parse("mean").build_fusion(backbone.shape)}
    all_states = {name: parse(name).build_fusion(backbone.shape) for name in every}
    seconds = alternated(
        {"one": lambda: work(one), "every": lambda: work(all_states), "methods": lambda: work(methods)}, flags.rounds
    )
    every_ratio, methods_ratio = ratio(seconds["every"], seconds["one"]), ratio(seconds["methods"], seconds["one"])
    a_pass = statistics.median(seconds["one"])
    shares = {name: round(statistics.median(values) / a_pass, 4) for name, values in vector_seconds.items()}
    here = machine()
    table = [
        "# What pooling costs",
        "",
        f"{DEFAULT}, {len(texts)} distinct short texts, {here['processor']}, {here['cores']} cores. Wall time over "
        f"that of the pass for `mean` alone; medians of {flags.rounds} rounds, lowest and highest in brackets.",
        "",
        "| pass | ratio |",
        "| --- | --- |",
        f"| every layer's mean and first token ({len(every)} poolings) | {shown(every_ratio)} |",
        f"| the catalogue's {len(methods)} fusions of pooled states, vectors made | {shown(methods_ratio)} |",
        "",
        "| vectors of one fusion, from stored states | share of the pass |",
        "| --- | --- |",
        *(f"| {name} | {share:.4f} |" for name, share in sorted(shares.items(), key=lambda item: -item[1])),
    ]
    report = {
        "every": every_ratio,
        "methods": methods_ratio,
        "shares": shares,
        "learned": [name for name, fusion in methods.items() if any(True for _ in fusion.parameters())],
        "seconds": seconds,
    }
    write(flags.out, "cost_of_pooling", report, table)


if __name__ == "__main__":
    main()
