"""How cost grows here with texts, methods, layers, width, corpus; fitted, and carried on to an H100.

    python scripts/growth.py --data-dir DATA --part texts      # and methods, shapes, corpus; under three minutes each
    python scripts/growth.py --part report                     # fits and tables again, from the stored measurements

Texts are real; weights are of chance where the default backbone has not the shape in question, because what weights
hold does not change what they cost. Each point is the median of `--rounds`; a round goes through all
points of its part. Fits minimise relative errors with coefficients of at least 0 (scipy's lsq_linear).
Writes results/speed/growth.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from measuring import machine
from scipy.optimize import lsq_linear
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import DEFAULT, find_backbone
from fusebench.methods.engine import SharedPass
from fusebench.methods.grammar import parse
from fusebench.study.flops import BERT_BASE, LLAMA_7B, MINILM, Transformer
from fusebench.study.options import Options
from fusebench.study.plan import make_plan
from fusebench.study.run import run
from fusebench.study.training_data import RowSource

SETS = ("nli", "flickr30k", "wiki1m")
PARTS = ("texts", "many-texts", "methods", "shapes", "corpus")
TEXTS = (1_000, 3_000, 10_000, 30_000)
MANY_TEXTS = (100_000,)
METHODS = (1, 4, 16, 64)
LAYERS = (2, 4, 8, 16, 32, 48)
WIDTHS = (64, 128, 256, 512, 1024)
DOCUMENTS = (1_000, 3_000, 10_000, 30_000)
QUERIES = 100

# Assumptions, not measurements: NVIDIA's figure for dense bf16 on an H100 SXM, and the share of it that is reached.
H100_PEAK = 989e12
H100_UTILISATION = 0.4

Point = dict[str, Any]


def real_texts(data_dir: Path, count: int) -> list[str]:
    """So many distinct sentences, drawn from those of the training sets."""
    sets = [RowSource((name,), data_dir, None).rows(("sentences",)) for name in SETS]
    texts = list(dict.fromkeys(text for rows in sets for text in rows.columns[0]))
    if len(texts) < count:
        raise SystemExit(f"{count} distinct texts are needed; {', '.join(SETS)} below {data_dir} have {len(texts)}")
    return [texts[place] for place in np.random.default_rng(0).permutation(len(texts))[:count]]


def random_backbone(shape: Transformer) -> Backbone:
    """A BERT of this shape with weights of chance and the default backbone's tokenizer."""
    source = find_backbone(DEFAULT)
    with tempfile.TemporaryDirectory() as folder:
        for file in Path(source.folder).iterdir():
            if file.is_file() and ("token" in file.name or file.name.startswith(("vocab", "special"))):
                shutil.copy(file, folder)
        config = BertConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.dim,
            num_hidden_layers=shape.blocks,
            num_attention_heads=max(1, shape.dim // 64),
            intermediate_size=shape.inner,
        )
        BertModel(config).save_pretrained(folder)
        return Backbone(find_backbone(folder), max_length=256)


def passed(backbone: Backbone, sentence: str, texts: Sequence[str]) -> tuple[float, int]:
    """Seconds of one pass with this method's states kept, and the tokens that went through."""
    (method, *_) = parse(sentence).on(backbone.shape)
    fusions = {method.name: method.build_fusion(backbone.shape)}
    shared = SharedPass(backbone, fusions)
    started = time.perf_counter()
    shared.ensure(texts)
    return time.perf_counter() - started, shared.statistics.tokens


def medians(points: Sequence[Point], measure: Callable[[Point], dict[str, float]], rounds: int) -> list[Point]:
    """Every point measured once a round."""
    found: list[list[dict[str, float]]] = [[measure(point) for point in points] for _ in range(rounds)]
    return [
        {**point, **{name: statistics.median(one[place][name] for one in found) for name in found[0][place]}}
        for place, point in enumerate(points)
    ]


def texts_part(sizes: Sequence[int], data_dir: Path, rounds: int) -> list[Point]:
    """Passes of the default backbone over more and more texts, mean of the last layer kept."""
    texts = real_texts(data_dir, max(sizes))
    backbone = Backbone(find_backbone(DEFAULT))
    passed(backbone, "mean", texts[:200])

    def measure(point: Point) -> dict[str, float]:
        seconds, tokens = passed(backbone, "mean", texts[: point["texts"]])
        return {"seconds": seconds, "tokens": tokens}

    return medians([{"texts": size} for size in sizes], measure, rounds)


def methods_part(data_dir: Path, rounds: int) -> list[Point]:
    """Whole runs on STSBenchmark, records written, with more and more pooled-state methods."""
    # Not the first token of the embedding output, which is the same in all texts.
    layers = [f"mean(layer={k})" for k in range(6, -1, -1)] + [f"cls(layer={k})" for k in range(6, 0, -1)]
    # Nor the maximum over layers: two of its dimensions hardly vary over the fit texts and overflow, standardized.
    layers += ["first-last", "last-k-mean(k=2)", "layer-mean"]
    sentences = [layer + end for end in ("", "+standardize", "+abtt", "+whiten(k=64)") for layer in layers]
    whole = make_plan(Options(methods=tuple(sentences), tasks=("STSBenchmark",), data_dir=data_dir))
    if len(whole.cells) != len(sentences):
        raise SystemExit("two of the methods are one")

    def measure(point: Point) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as out:
            started = time.perf_counter()
            outcome = run(replace(whole, cells=whole.cells[: point["methods"]]), Store(Path(out)))
            seconds = time.perf_counter() - started
        if outcome.failures:
            raise SystemExit("\n".join(outcome.failures))
        return {"seconds": seconds, "in_mteb": outcome.scoring_seconds}

    return medians([{"methods": count} for count in METHODS], measure, rounds)


def shapes_part(data_dir: Path, rounds: int) -> list[Point]:
    """Passes of BERTs of chance: depth at width 128, all layers kept or the last; width at 4 layers; BERT-base."""
    texts = real_texts(data_dir, 1_000)
    points: list[Point] = [{"blocks": blocks, "dim": 128, "texts": 1_000} for blocks in LAYERS]
    points += [{"blocks": 4, "dim": dim, "texts": 400} for dim in WIDTHS]
    points += [{"blocks": 12, "dim": 768, "texts": 400}]

    def measure(point: Point) -> dict[str, float]:
        shape = Transformer(point["blocks"], point["dim"], 4 * point["dim"], 30_522)
        backbone = random_backbone(shape)
        own = texts[: point["texts"]]
        passed(backbone, "mean", own[:50])
        seconds, tokens = passed(backbone, "mean", own)
        every, _ = passed(backbone, "layer-mean", own)
        return {"seconds": seconds, "every_layer_seconds": every, "tokens": tokens}

    return medians(points, measure, rounds)


def corpus_part(rounds: int) -> list[Point]:
    """mteb's retrieval scoring of finished vectors, 384 wide, for 100 queries over more and more documents."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = {size: _made_up_task(Path(folder), size) for size in DOCUMENTS}

        def measure(point: Point) -> dict[str, float]:
            generator = np.random.default_rng(0)
            judged = judge(
                tasks[point["documents"]],
                lambda role, texts: generator.standard_normal((len(texts), 384), dtype=np.float32),
                name="chance",
                revision="none",
                experiment={},
            )
            return {"seconds": judged.seconds}

        measure({"documents": DOCUMENTS[0]})
        return medians([{"documents": size} for size in DOCUMENTS], measure, rounds)


def _made_up_task(folder: Path, documents: int) -> Any:
    """A retrieval task of words without meaning; its vectors are drawn anyway."""
    own = folder / f"Corpus{documents}"
    rows = {
        "corpus.jsonl": [{"_id": f"d{i}", "title": "", "text": f"document {i}"} for i in range(documents)],
        "queries.jsonl": [{"_id": f"q{i}", "text": f"query {i}"} for i in range(QUERIES)],
        "qrels/test.jsonl": [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(QUERIES)],
    }
    for name, lines in rows.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    configs = [("corpus", "corpus", "corpus.jsonl"), ("queries", "queries", "queries.jsonl")]
    configs += [("default", "test", "qrels/test.jsonl")]
    header = "".join(
        f"- config_name: {name}\n  data_files: [{{split: {split}, path: {path}}}]\n" for name, split, path in configs
    )
    (own / "README.md").write_text(f"---\nconfigs:\n{header}---\n", encoding="utf-8")
    (source,) = find_tasks([own.name], folder)
    return load_task(source, limit=None, allow_empty=False)


def fitted(terms: Mapping[str, Sequence[float]], seconds: Sequence[float]) -> dict[str, Any]:
    """Coefficients of at least 0 that make the relative errors small; R^2 and the worst of these errors."""
    matrix, y = np.array(list(terms.values()), dtype=float).T, np.asarray(seconds)
    scale = np.abs(matrix).max(axis=0)
    found = lsq_linear(matrix / scale / y[:, None], np.ones(len(y)), bounds=(0, np.inf)).x / scale
    errors = matrix @ found - y
    return {
        "coefficients": dict(zip(terms, found.tolist(), strict=True)),
        "r2": float(1 - (errors**2).sum() / ((y - y.mean()) ** 2).sum()),
        "worst_relative_error": float(np.abs(errors / y).max()),
        "points": len(y),
    }


def fits(parts: Mapping[str, list[Point]]) -> dict[str, Any]:
    """A model of few terms for every curve that was measured."""
    found = {}
    if texts := parts.get("texts"):
        points = [*texts, *parts.get("many-texts", [])]
        found["texts"] = _fit(points, {"fixed": lambda p: 1.0, "token": lambda p: p["tokens"]})
    if points := parts.get("methods", []):
        found["methods"] = _fit(points, {"fixed": lambda p: 1.0, "method": lambda p: p["methods"]})
    if shapes := parts.get("shapes"):
        depth = [point for point in shapes if point["dim"] == 128]
        width = [point for point in shapes if point["blocks"] == 4 and point["texts"] == 400]
        found["layers"] = _fit(
            depth, {"token": lambda p: p["tokens"], "token x layer": lambda p: p["tokens"] * p["blocks"]}
        )
        found["widths"] = _fit(
            width,
            {
                "token x width": lambda p: p["tokens"] * p["dim"],
                "token x width^2": lambda p: p["tokens"] * p["dim"] ** 2,
            },
        )
    if points := parts.get("corpus", []):
        found["corpus"] = _fit(points, {"fixed": lambda p: 1.0, "document": lambda p: p["documents"]})
    return found


def _fit(points: Sequence[Point], terms: Mapping[str, Callable[[Point], float]]) -> dict[str, Any]:
    columns = {name: [term(point) for point in points] for name, term in terms.items()}
    return fitted(columns, [point["seconds"] for point in points])


def counted_flops() -> dict[str, Any]:
    """Our count of operations beside torch's own, for models that hold no memory."""
    found = {}
    for name, shape, length in (("BERT-base", BERT_BASE, 128), ("7B", LLAMA_7B, 128)):
        with torch.device("meta"):
            if shape.gated:
                settings = {"num_key_value_heads": 32, "num_attention_heads": 32, "attn_implementation": "eager"}
                model: Any = LlamaModel(LlamaConfig(**_sizes(shape), **settings))
            else:
                heads = {"num_attention_heads": 12, "attn_implementation": "eager"}
                model = BertModel(BertConfig(**_sizes(shape), **heads), add_pooling_layer=False)
            ids = torch.zeros((1, length), dtype=torch.long)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(input_ids=ids)
        ours = shape.forward(length) * length
        found[name] = {
            "length": length,
            "ours": ours,
            "torch": counter.get_total_flops(),
            "ratio": ours / counter.get_total_flops(),
        }
    return found


def _sizes(shape: Transformer) -> dict[str, int]:
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.blocks,
        "intermediate_size": shape.inner,
    }


def predictions(found: Mapping[str, Any], parts: Mapping[str, list[Point]]) -> dict[str, Any]:
    """BERT-base here, from the fit of smaller shapes and measured; BERT-base and 7B on an H100, assumed."""
    made: dict[str, Any] = {"h100": []}
    for name, shape in (("BERT-base", BERT_BASE), ("7B", LLAMA_7B)):
        for length in (16, 128, 256):
            rate = H100_PEAK * H100_UTILISATION / shape.forward(length)
            made["h100"].append(
                {
                    "backbone": name,
                    "tokens_a_text": length,
                    "gflop_a_text": shape.forward(length) * length / 1e9,
                    "texts_a_second": rate / length,
                    "hours_a_million_texts": 1e6 * length / rate / 3600,
                }
            )
    if "widths" in found:
        (base,) = (point for point in parts["shapes"] if point["dim"] == 768)
        c = found["widths"]["coefficients"]
        per_token = (c["token x width"] * 768 + c["token x width^2"] * 768**2) * base["blocks"] / 4
        predicted = per_token * base["tokens"]
        made["bert_base_here"] = {
            "predicted_seconds": predicted,
            "measured_seconds": base["seconds"],
            "ratio": predicted / base["seconds"],
        }
    if "texts" in found:
        points = parts["texts"]
        length = points[-1]["tokens"] / points[-1]["texts"]
        made["achieved_gflops_here"] = MINILM.forward(length) / found["texts"]["coefficients"]["token"] / 1e9
    return made


def markdown(report: Mapping[str, Any]) -> str:
    """Curves, fits and predictions."""
    here = report["machine"]
    lines = [
        "# How cost grows",
        "",
        f"Seconds and constants of this machine ({here['cores']} cores, {here['processor']}, torch "
        f"{here['torch']}), medians of {report['rounds']} round(s); elsewhere only their ratios mean "
        f"something. {report['note']}",
    ]
    titles = {
        "texts": "Texts: a pass of the default backbone over distinct sentences, one method",
        "many-texts": "More texts",
        "methods": "Methods: whole runs on STSBenchmark, pass, transforms, scoring and records",
        "shapes": "Layers and width: BERTs of chance, the last layer's mean kept or those of all layers",
        "corpus": f"Corpus: mteb's scoring of finished vectors, {QUERIES} queries, 384 wide",
    }
    for part, title in titles.items():
        if points := report["parts"].get(part):
            names = list(points[0])
            lines += ["", f"## {title}", "", f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
            lines += [f"| {' | '.join(_number(point[name]) for name in names)} |" for point in points]
    lines += [
        "",
        "## Fitted",
        "",
        "| curve | seconds | R^2 | worst relative error | points |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, fit in report["fits"].items():
        terms = " + ".join(
            f"{value:.3g} {'' if term == 'fixed' else f'x {term}'}".strip()
            for term, value in fit["coefficients"].items()
        )
        lines.append(f"| {name} | {terms} | {fit['r2']:.4f} | {fit['worst_relative_error']:.1%} | {fit['points']} |")
    lines += _predicted(report)
    return "\n".join(lines) + "\n"


def _predicted(report: Mapping[str, Any]) -> list[str]:
    made = report["predictions"]
    lines = ["", "## Carried on", ""]
    if here := made.get("bert_base_here"):
        seconds = f"{here['predicted_seconds']:.2f} s predicted and {here['measured_seconds']:.2f} s measured"
        lines += [
            "A BERT of base shape on this machine, from the fit over width, which has not seen it: "
            f"{seconds}, ratio {here['ratio']:.2f}.",
            "",
        ]
    if rate := made.get("achieved_gflops_here"):
        lines += [f"The default backbone does {rate:.0f} GFLOP/s here, by the fit over texts.", ""]
    counted = ", ".join(
        f"{one['ratio']:.3f} for {name} at {one['length']} tokens" for name, one in report["counted_flops"].items()
    )
    lines += [
        "Operations are counted as 2 a weight and token, and 4 L n d a token for attention; over torch's count: "
        f"{counted}.",
        "",
        f"On an H100, *assumed, not measured*: {H100_PEAK / 1e12:.0f} TFLOP/s dense bf16 as NVIDIA states, of which "
        f"{H100_UTILISATION:.0%} are reached, no padding, tokenisation hidden behind the arithmetic.",
        "",
        "| backbone | tokens a text | GFLOP a text | texts a second | hours a million texts |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(_number(value) for value in one.values())} |" for one in made["h100"]),
    ]
    return lines


def _number(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Measures a part, fits all that is there, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=(*PARTS, "report"), required=True)
    parser.add_argument("--data-dir", type=Path, help="with STSBenchmark and the sets in SETS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    parser.add_argument("--note", help="on the circumstances, kept and printed with the numbers")
    flags = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    name = flags.out / "growth"
    path = name.with_suffix(".json")
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"parts": {}}
    report["note"] = flags.note or report.get("note", "")
    for part in flags.part:
        measure: dict[str, Callable[[], list[Point]]] = {
            "texts": lambda: texts_part(TEXTS, flags.data_dir, flags.rounds),
            "many-texts": lambda: texts_part(MANY_TEXTS, flags.data_dir, 1),
            "methods": lambda: methods_part(flags.data_dir, flags.rounds),
            "shapes": lambda: shapes_part(flags.data_dir, flags.rounds),
            "corpus": lambda: corpus_part(flags.rounds),
        }
        if part in measure:
            report |= {"rounds": flags.rounds, "machine": machine()}
            report["parts"][part] = measure[part]()
            _write(path, report)
    report["fits"] = fits(report["parts"])
    report["counted_flops"] = counted_flops()
    report["predictions"] = predictions(report["fits"], report["parts"])
    _write(path, report)
    name.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


def _write(path: Path, report: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
