from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import transformers

from fusebench.benchmarks.record import Prompts
from fusebench.benchmarks.store import Store
from fusebench.methods import registry
from fusebench.methods.backbone import Backbone
from fusebench.study.boards import rebuild
from fusebench.study.options import Options
from fusebench.study.plan import make_plan
from fusebench.study.run import run
from tests.conftest import TinyData
from tests.tiny_models import edit_json, save

# Words that the tiny tokenizer knows; every sentence is one that no file of the project holds.
TOPICS = ["cat sat on mat", "dog on the cat", "w1 w2 of w3", "w4 means w5", "w6 dogs w7", "w8 w9 the w10 mat"]
PAIRS = [
    {"sentence1": f"the {TOPICS[i % 6]} w{i}", "sentence2": f"a {TOPICS[(i * i + 1) % 6]} w{i + 12}", "score": gold}
    for i, gold in enumerate(
        [0.71828, 4.71828, 2.71828, 1.71828, 3.71828, 0.81828, 2.91828, 4.01828, 1.21828, 3.31828]
    )
]
DOCUMENTS = [
    {"_id": f"d{i}", "title": f"mat w{i}" if i % 3 else "", "text": f"of {TOPICS[i % 6]} w{39 - i} w{i} sat"}
    for i in range(16)
]
QUERIES = [{"_id": f"q{i}", "text": f"w{i} {TOPICS[(i + 2) % 6]} this w{2 * i}"} for i in range(5)]
QRELS = [
    *({"query-id": f"q{i}", "corpus-id": f"d{3 * i}", "score": 1} for i in range(5)),
    {"query-id": "q0", "corpus-id": "d7", "score": 2},
    {"query-id": "q3", "corpus-id": "d1", "score": 1},
]
FIT = [f"the w{i} cat w{3 * i % 40} of w{i * i % 40} mat" for i in range(40)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a tiny BERT, two tasks and fit texts."""
    root = tmp_path_factory.mktemp("moved-nowhere")
    save("bert", root / "models" / "tiny-bert")
    tiny = TinyData(root / "data")
    tiny.write_sts("TinySTS", PAIRS)
    tiny.write_retrieval("TinySearch", corpus=DOCUMENTS, queries=QUERIES, qrels=QRELS)
    (root / "fit.txt").write_text("\n".join(FIT))
    return root


def options(world, *methods, **settings):
    asked = Options(
        methods=methods,
        backbone=str(world / "models" / "tiny-bert"),
        tasks=("TinySTS", "TinySearch"),
        data_dir=world / "data",
        fit=str(world / "fit.txt"),
        device="cpu",
    )
    return replace(asked, **settings)


def bench(world, out, *methods, **settings):
    """Runs it and writes everything; the outcome and the records by method and task."""
    store = Store(out)
    outcome = run(make_plan(options(world, *methods, **settings)), store)
    rebuild(store)
    return outcome, {(record.spec.method.name, record.spec.task.name): record for record in store.records()}


class ByHand:
    """Vectors and scores straight from transformers, numpy and scipy, one text at a time."""

    def __init__(self, folder, max_length=160):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
        self.max_length = max_length

    def tokens(self, text):
        return self.tokenizer(text)["input_ids"]

    def cut(self, text):
        ids = self.tokens(text)
        return ids if len(ids) <= self.max_length else [*ids[: self.max_length - 1], ids[-1]]

    def mean(self, text, layer=-1):
        with torch.no_grad():
            states = self.model(torch.tensor([self.cut(text)]), output_hidden_states=True).hidden_states
        return states[layer][0].double().mean(dim=0).numpy()

    def whitened(self, fit):
        X = np.stack([self.mean(text) for text in fit])
        U, variances, _ = np.linalg.svd(np.cov(X.T, bias=True))
        return lambda text: (self.mean(text) - X.mean(axis=0)) @ U[:, :4] / np.sqrt(variances[:4])


def cosine(a, b):
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def sts_score(embed):
    cosines = [cosine(embed(pair["sentence1"]), embed(pair["sentence2"])) for pair in PAIRS]
    return scipy.stats.spearmanr(cosines, [pair["score"] for pair in PAIRS]).statistic


def search_score(embed_query, embed_document):
    """Mean over queries of ndcg@10 with linear gain."""
    documents = {d["_id"]: embed_document(f"{d['title']} {d['text']}".strip()) for d in DOCUMENTS}
    ndcgs = []
    for query in QUERIES:
        vector = embed_query(query["text"])
        ranking = sorted(documents, key=lambda name: -cosine(vector, documents[name]))[:10]
        gains = {q["corpus-id"]: q["score"] for q in QRELS if q["query-id"] == query["_id"]}
        ideal = sum(gain / math.log2(k + 2) for k, gain in enumerate(sorted(gains.values(), reverse=True)))
        ndcgs.append(sum(gains.get(name, 0) / math.log2(k + 2) for k, name in enumerate(ranking)) / ideal)
    return sum(ndcgs) / len(ndcgs)


@pytest.fixture(scope="module")
def first(world, tmp_path_factory):
    """One run of some methods, its backbone's forward passes counted."""
    out = tmp_path_factory.mktemp("results")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        forward = Backbone.forward

        def counted(self, tokens, mask, *rest):
            seen.extend(tuple(row[kept].tolist()) for row, kept in zip(tokens, mask, strict=True))
            return forward(self, tokens, mask, *rest)

        plan = make_plan(options(world, "mean", "mean(layer=1)", "cls", "max", "mean+whiten(k=4)", "sbert-wk"))
        patch.setattr(Backbone, "forward", counted)
        store = Store(out)
        outcome = run(plan, store)
    rebuild(store)
    records = {(record.spec.method.name, record.spec.task.name): record for record in store.records()}
    return out, outcome, records, seen


def test_scores_are_those_computed_by_hand(world, first):
    _, _, records, _ = first
    hand = ByHand(world / "models" / "tiny-bert")
    for method, embed in {
        "mean": hand.mean,
        "mean(layer=1)": lambda text: hand.mean(text, 1),
        "mean+whiten(k=4)": hand.whitened(FIT),
    }.items():
        assert records[method, "TinySTS"].main_score == pytest.approx(sts_score(embed), abs=1e-6)
        assert records[method, "TinySearch"].main_score == pytest.approx(search_score(embed, embed), abs=1.1e-5)
    assert len({round(record.main_score, 3) for record in records.values()}) > 6, "the methods can be told apart"


def test_all_methods_share_one_pass_and_each_input_goes_through_once(world, first):
    _, outcome, _, seen = first
    hand = ByHand(world / "models" / "tiny-bert")
    texts = [text for pair in PAIRS for text in (pair["sentence1"], pair["sentence2"])]
    texts += [f"{d['title']} {d['text']}".strip() for d in DOCUMENTS] + [q["text"] for q in QUERIES] + FIT
    assert sorted(seen) == sorted({tuple(hand.tokens(text)) for text in texts})
    (only,) = outcome.passes
    assert outcome.methods == 6
    assert (only.texts, only.distinct_inputs) == (len(texts), len(seen))
    assert only.tokens == sum(map(len, seen))


def test_counts_are_those_of_the_task(first):
    _, _, records, _ = first
    sts, search = records["mean", "TinySTS"].counts, records["mean", "TinySearch"].counts
    texts = [text for pair in PAIRS for text in (pair["sentence1"], pair["sentence2"])]
    assert (sts.texts, sts.distinct_texts, sts.truncated_texts) == (20, len(set(texts)), 0)
    assert (search.texts, search.distinct_texts, search.empty_texts) == (21, 21, 0)


def test_costs_of_the_tasks_add_up_to_no_more_than_the_pass(first):
    _, outcome, records, _ = first
    shares = [record.cost.pass_seconds for (method, _), record in records.items() if method == "mean"]
    assert 0 < sum(shares) <= outcome.passes[0].seconds + 1e-3


def test_the_flat_table_holds_every_score_of_every_record(first):
    out, _, records, _ = first
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(record.scores) for record in records.values())
    main = {(row["method"], row["task"]): float(row["score"]) for row in rows if row["is_main"] == "true"}
    assert main == {key: record.main_score for key, record in records.items()}


def test_nothing_that_is_kept_names_a_path_a_text_or_a_gold_label(world, first):
    out, _, _, _ = first
    texts = [text for pair in PAIRS for text in (pair["sentence1"], pair["sentence2"])]
    texts += [d["text"] for d in DOCUMENTS] + [q["text"] for q in QUERIES] + FIT
    secrets = [*texts, *(str(pair["score"]) for pair in PAIRS), str(world), str(out), world.name, str(Path.home())]
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) > 20
    for file in files:
        content = file.read_bytes().decode("utf-8", errors="replace")
        found = [secret for secret in secrets if secret in content]
        # the page says with which command it was made
        assert not (set(found) - {str(out)} if file.name == "README.md" else found), file


def test_a_second_run_keeps_every_cell_and_rewrites_none(world, tmp_path, monkeypatch):
    bench(world, tmp_path, "mean", "cls")
    files = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("runs/*/*/*.json")}
    files |= {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.rglob("mteb/*/*/*.json")}
    assert len(files) == 8
    monkeypatch.setattr(Store, "write", lambda *a: pytest.fail("a finished cell was written again"))
    outcome, _ = bench(world, tmp_path, "mean", "cls")
    assert (outcome.kept, outcome.finished, outcome.passes) == (4, 0, [])
    assert files == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_a_new_method_runs_alone_beside_finished_ones(world, tmp_path):
    bench(world, tmp_path, "mean")
    outcome, records = bench(world, tmp_path, "mean", "max")
    assert (outcome.kept, outcome.finished, outcome.methods) == (2, 2, 1)
    assert len(records) == 4


def test_rerun_computes_everything_again_and_finds_the_same(world, tmp_path):
    _, before = bench(world, tmp_path, "mean")
    outcome, after = bench(world, tmp_path, "mean", rerun=True)
    assert (outcome.kept, outcome.finished) == (0, 2)
    for key, record in before.items():
        assert after[key].environment.created > record.environment.created
        assert after[key].scores == record.scores
        assert after[key].spec_id == record.spec_id


def test_a_truncated_record_is_computed_again(world, tmp_path):
    _, before = bench(world, tmp_path, "mean")
    spoilt = next((tmp_path / "runs").rglob("*tinysts*/*.json"))
    spoilt.write_text(spoilt.read_text()[:300])
    outcome, after = bench(world, tmp_path, "mean")
    assert (outcome.kept, outcome.finished) == (1, 1)
    # other texts in the batches move the last bits of a vector
    assert after["mean", "TinySTS"].main_score == pytest.approx(before["mean", "TinySTS"].main_score, abs=1e-5)


def test_long_texts_are_cut_at_the_limit_and_counted(world, tmp_path):
    _, records = bench(world, tmp_path, "mean", max_length=8)
    hand = ByHand(world / "models" / "tiny-bert", max_length=8)
    record = records["mean", "TinySTS"]
    texts = {text for pair in PAIRS for text in (pair["sentence1"], pair["sentence2"])}
    long = sum(len(hand.tokens(text)) > 8 for text in texts)
    assert 0 < long < len(texts)
    assert record.counts.truncated_texts == long
    assert records["mean", "TinySearch"].counts.truncated_texts > 0
    assert record.main_score == pytest.approx(sts_score(hand.mean), abs=1e-6)
    assert (record.spec.max_length, record.spec.max_length_source) == (8, "--max-length")


def test_each_prompt_goes_to_its_own_role(world, tmp_path):
    prompts = Prompts(text="a mat ", query="dogs w20 ", document="this means ")
    _, records = bench(world, tmp_path, "mean", prompts=prompts)
    hand = ByHand(world / "models" / "tiny-bert")

    def under(prompt):
        return lambda text: hand.mean(prompt + text)

    expected = search_score(under("dogs w20 "), under("this means "))
    assert records["mean", "TinySTS"].main_score == pytest.approx(sts_score(under("a mat ")), abs=1e-6)
    assert records["mean", "TinySearch"].main_score == pytest.approx(expected, abs=1.1e-5)
    others = [
        search_score(hand.mean, hand.mean),
        search_score(under("this means "), under("dogs w20 ")),
        search_score(under("dogs w20 "), under("dogs w20 ")),
    ]
    assert all(abs(other - expected) > 1e-3 for other in others), "the data can tell the roles apart"
    assert records["mean", "TinySTS"].spec.prompts == prompts


def test_a_prompt_before_every_text_stands_before_fit_texts_too(world, tmp_path):
    _, records = bench(world, tmp_path, "mean+whiten(k=4)", tasks=("TinySTS",), prompts=Prompts(text="a mat "))
    hand = ByHand(world / "models" / "tiny-bert")
    whitened = hand.whitened(["a mat " + text for text in FIT])
    expected = sts_score(lambda text: whitened("a mat " + text))
    assert records["mean+whiten(k=4)", "TinySTS"].main_score == pytest.approx(expected, abs=1e-6)


PLUGIN = """
import torch
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs


class Head(Fusion):
    needs = Needs.MEANS

    def __init__(self, shape):
        super().__init__()
        self.layers, self.out_dim = (shape.blocks,), shape.dim

    def forward(self, states):
        return self.change(states.mean(self.layers[0]))


@register("gone-wrong", paper="none")
class GoneWrong(Head):
    def change(self, x):
        return x * float("nan")


@register("raising", paper="none")
class Raising(Head):
    def change(self, x):
        raise RuntimeError("no luck today")


@register("constant", paper="none")
class Constant(Head):
    def change(self, x):
        return x * 0 + 1


@register("random-head", paper="none", learned=True)
class RandomHead(Head):
    def __init__(self, shape):
        super().__init__(shape)
        self.head = torch.nn.Linear(shape.dim, 5)
        self.out_dim = 5

    def change(self, x):
        return self.head(x)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Fusions that go wrong, known for one test."""
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    registry.load_plugins([tmp_path / "plugin.py"])


def test_a_method_that_goes_wrong_fails_its_own_cells_only(world, tmp_path, plugin):
    wrong = ("gone-wrong", "gone-wrong+whiten(k=4)", "raising", "constant", "constant+whiten(k=4)")
    outcome, records = bench(world, tmp_path / "out", *wrong, "mean", "mean+whiten(k=4)")
    assert set(records) == {(m, t) for m in ("mean", "mean+whiten(k=4)") for t in ("TinySTS", "TinySearch")}
    assert outcome.finished == 4
    named = [failure.split(": ")[0] for failure in outcome.failures]
    assert named == [f"{method} on {task}" for method in wrong for task in ("TinySTS", "TinySearch")]
    said = dict(zip(named, outcome.failures, strict=True))
    assert "NaN" in said["gone-wrong on TinySTS"]
    assert "fit texts hold NaN" in said["gone-wrong+whiten(k=4) on TinySTS"]
    assert said["raising on TinySTS"].endswith("RuntimeError: no luck today")
    assert "point the same way" in said["constant on TinySTS"]
    assert not list((tmp_path / "out").rglob("*gone-wrong*"))


def test_failed_cells_are_tried_again_and_finished_ones_kept(world, tmp_path, plugin):
    bench(world, tmp_path / "out", "raising", "mean")
    outcome, _ = bench(world, tmp_path / "out", "raising", "mean")
    assert (outcome.kept, outcome.finished, len(outcome.failures)) == (2, 0, 2)


def test_random_weights_follow_their_seed(world, tmp_path, plugin):
    asked = {"seeds": (3, 4), "tasks": ("TinySTS",)}

    def scores(place, *methods, **settings):
        bench(world, tmp_path / place, *methods, **{**asked, **settings})
        return {r.spec.seed: r.main_score for r in Store(tmp_path / place).records() if r.spec.seed is not None}

    here = scores("here", "random-head(untrained)")
    with torch.random.fork_rng():
        torch.manual_seed(99)
        there = scores("there", "mean", "random-head(untrained)", seeds=(4, 3))
    assert here == there
    assert here[3] != here[4]


def test_a_record_counts_the_weights_that_a_method_adds(world, tmp_path, plugin):
    _, records = bench(world, tmp_path / "out", "random-head(untrained)", "mean", tasks=("TinySTS",))
    head, mean = records["random-head(untrained)", "TinySTS"], records["mean", "TinySTS"]
    assert (head.out_dim, head.added_parameters) == (5, 32 * 5 + 5)
    assert (mean.out_dim, mean.added_parameters) == (32, 0)


def _identity(options, method="mean+whiten(k=4)"):
    return make_plan(replace(options, methods=(method,))).cells[0].spec.spec_id


@pytest.fixture(scope="module")
def identity(world):
    """Of a cell of the world as it is."""
    return _identity(options(world))


def test_a_cell_keeps_its_identity_when_folders_move(world, tmp_path, identity):
    moved = Path(shutil.copytree(world, tmp_path / "elsewhere"))
    assert _identity(options(moved)) == identity


def _change_weights(world):
    save("bert", world / "models" / "tiny-bert", seed=1)
    return {}


def _change_tokenizer(world):
    file = world / "models" / "tiny-bert" / "tokenizer.json"
    model = json.loads(file.read_text())["model"]
    model["vocab"]["w40"] = model["vocab"].pop("##ing")
    edit_json(file, model=model)
    return {}


def _change_data(world):
    file = world / "data" / "TinySTS" / "test.jsonl"
    file.write_text(file.read_text().replace("4.01828", "4.01829"))
    return {}


def _change_fit(world):
    (world / "fit.txt").write_text("\n".join(FIT[:-1]))
    return {}


CHANGES = {
    "weights": _change_weights,
    "tokenizer": _change_tokenizer,
    "data": _change_data,
    "fit": _change_fit,
    "prompt": lambda world: {"prompts": Prompts(text="a ")},
    "query prompt": lambda world: {"prompts": Prompts(query="a ")},
    "document prompt": lambda world: {"prompts": Prompts(document="a ")},
    "max length": lambda world: {"max_length": 100},
    "dtype": lambda world: {"dtype": "bfloat16"},
    "batch tokens": lambda world: {"batch_tokens": 512},
    "limit": lambda world: {"limit": 9},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_cell_has_another_identity_with_other(world, tmp_path, identity, what):
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    settings = CHANGES[what](copy)
    assert _identity(options(copy, **settings)) != identity


def test_fit_texts_are_no_part_of_a_method_that_fits_nothing(world, tmp_path):
    (tmp_path / "other.txt").write_text("\n".join(FIT[:20]))
    assert _identity(options(world, fit=str(tmp_path / "other.txt")), "mean") == _identity(options(world), "mean")


def test_a_limited_run_is_marked_wherever_its_scores_are_shown(world, tmp_path):
    _, records = bench(world, tmp_path, "mean", limit=4)
    assert {record.spec.limit for record in records.values()} == {4}
    assert {record.counts.texts for (_, task), record in records.items() if task == "TinySTS"} == {8}
    with (tmp_path / "scores.csv").open() as file:
        assert {row["limit"] for row in csv.DictReader(file)} == {"4"}
    shown = [*tmp_path.rglob("*.md"), *tmp_path.rglob("*.tex")]
    assert len(shown) >= 3
    for file in shown:
        assert "SMOKE RUN" in file.read_text(), file


def test_a_limited_and_a_whole_run_share_no_board(world, tmp_path):
    bench(world, tmp_path, "mean", limit=4)
    bench(world, tmp_path, "mean", "cls")
    boards, _ = rebuild(Store(tmp_path))
    assert sorted((len(board.table), "SMOKE RUN" in board.title) for board in boards) == [(1, True), (2, False)]
