from __future__ import annotations

import hashlib
import json
import math
import zlib

import numpy as np
import pytest

from fusebench.benchmarks import exact_search, finished_encoder
from fusebench.benchmarks.finished_encoder import FinishedEncoder
from fusebench.benchmarks.mteb_bridge import as_written, judge


def embed(texts, seed=0, dim=16):
    """Reproducible vectors that depend on nothing but the text."""
    rows = [np.random.default_rng([seed, zlib.crc32(text.encode())]).standard_normal(dim) for text in texts]
    return np.asarray(rows, dtype=np.float32).reshape(len(texts), dim)


def verdict(loaded, lookup=None, name="mean", revision="r1"):
    return judge(loaded, lookup or (lambda role, texts: embed(texts)), name=name, revision=revision, experiment={})


def test_lookup_sees_exactly_the_inputs_of_the_task(tiny):
    tiny.write_retrieval("Ret")
    tiny.write_sts("Pairs", tiny.pairs())
    for name in ("Ret", "Pairs"):
        loaded, asked = tiny.load(name), []

        def lookup(role, texts, asked=asked):
            asked.extend((role, text) for text in texts)
            return embed(texts)

        verdict(loaded, lookup)
        assert asked == list(loaded.inputs())


def test_the_main_score_is_the_spearman_correlation_of_cosines(tiny):
    from scipy.stats import spearmanr

    rows = tiny.pairs(20)
    tiny.write_sts("Mine", rows)
    judged = verdict(tiny.load("Mine"))
    left, right = embed([r["sentence1"] for r in rows]), embed([r["sentence2"] for r in rows])
    cosine = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(left, right, strict=True)]
    assert judged.main_score == pytest.approx(spearmanr(cosine, [r["score"] for r in rows])[0], abs=1e-6)


def test_the_main_score_is_ndcg_by_hand(tiny):
    tiny.write_retrieval("Mine")

    def lookup(role, texts):  # query i points at document 150 + i, so that it is found first
        numbers = [int(text.split()[-1]) + (150 if role == "query" else 0) for text in texts]
        vectors = np.zeros((len(texts), 200), dtype=np.float32)
        for row, number in enumerate(numbers):
            vectors[row, number] = 1
            # query 7 likes document 0 better: its own comes second
            vectors[row, 0] += 2 * (number == 157 and role == "query")
        return vectors

    expected = (5 * 1 + 1 / math.log2(3)) / 6
    assert verdict(tiny.load("Mine"), lookup).main_score == pytest.approx(expected, abs=1e-5)


class StockEncoder:
    """An encoder written as mteb's documentation says, reading every batch of the loader."""

    def __init__(self):
        from mteb.models.model_meta import ModelMeta

        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "stock/stock", "revision": "1"})

    def encode(self, inputs, *, prompt_type=None, **kwargs):
        return np.concatenate([embed(batch["text"]) for batch in inputs])

    def similarity(self, a, b):
        from mteb.similarity_functions import cos_sim

        return cos_sim(a, b)

    def similarity_pairwise(self, a, b):
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(a, b)


def write_stock_tasks(tiny):
    """STS13 and SciFact, and ArguAna, whose queries are documents that do not count, some of them twice there."""
    tiny.write_sts("STS13", tiny.pairs(12))
    tiny.write_retrieval("SciFact")
    corpus = [{"_id": f"d{i}", "title": "", "text": f"body {i % 90}"} for i in range(120)]
    queries = [{"_id": f"d{i}", "text": f"body {i}"} for i in range(20)]
    qrels = [{"query-id": f"d{i}", "corpus-id": f"d{i + shift}", "score": 1} for i in range(20) for shift in (30, 90)]
    tiny.write_retrieval("ArguAna", corpus=corpus, queries=queries, qrels=qrels)


def stock_task(tiny, name):
    import mteb

    if name == "LeeKnownItem":
        from fusebench.benchmarks.embedded import embedded_task

        return embedded_task(name)
    task = mteb.get_task(name)
    task.metadata = task.metadata.model_copy(update={"dataset": {"path": str(tiny.root / name), "revision": "x"}})
    return task


@pytest.mark.parametrize("name", ["STS13", "SciFact", "ArguAna", "LeeKnownItem"])
@pytest.mark.parametrize("whole", [False, True])
def test_every_metric_equals_that_of_stock_mteb_in_every_digit_it_writes(tiny, monkeypatch, name, whole):
    import mteb

    if whole:
        monkeypatch.setattr(finished_encoder, "short_rankings_suffice", lambda task: False)
    write_stock_tasks(tiny)
    options = {"cache": None, "co2_tracker": False, "show_progress_bar": False}
    kwargs = {"show_progress_bar": False}
    theirs = mteb.evaluate(StockEncoder(), [stock_task(tiny, name)], encode_kwargs=kwargs, **options)[0]
    assert verdict(tiny.load(name)).mteb_result["scores"] == as_written(theirs)["scores"]


@pytest.mark.parametrize("name", ["SciFact", "ArguAna"])
def test_our_search_finds_what_mteb_finds_with_the_same_encoder(tiny, monkeypatch, name):
    import mteb

    write_stock_tasks(tiny)
    loaded = tiny.load(name)

    def lookup(role, texts):  # four ones of either sign: cosines are quarters, exact however the corpus is cut
        random = embed(texts)
        signs = np.sign(random)
        return np.where(np.argsort(np.argsort(random, axis=1), axis=1) < 4, signs, 0)

    model = FinishedEncoder(lookup, name="m", revision="r", experiment={}, task=name)
    options = {"cache": None, "co2_tracker": False, "show_progress_bar": False}
    theirs = mteb.evaluate(model, [loaded.task], encode_kwargs={"show_progress_bar": False}, **options)[0]
    monkeypatch.setattr(exact_search, "_SIMILARITIES", 64)  # 8 documents a block
    assert verdict(loaded, lookup).mteb_result["scores"] == as_written(theirs)["scores"]


def test_a_row_that_cannot_be_judged_is_counted_across_blocks(tiny, monkeypatch):
    monkeypatch.setattr(exact_search, "_SIMILARITIES", 64)
    tiny.write_retrieval("Ret")

    def lookup(role, texts):
        vectors = embed(texts)
        vectors[["body 151" in text for text in texts]] = 0
        return vectors

    with pytest.raises(ArithmeticError, match="document row 151 has length 0"):
        verdict(tiny.load("Ret"), lookup)


def test_many_methods_are_judged_on_data_that_are_loaded_once(tiny):
    tiny.write_retrieval("Mine")
    loaded = tiny.load("Mine")
    data = loaded.task.dataset["default"]["test"]["corpus"]
    scores = [verdict(loaded, lambda role, texts, s=s: embed(texts, s), f"m{s}").scores for s in (0, 1, 0)]
    assert scores[0] == scores[2] != scores[1]
    assert loaded.task.data_loaded
    assert loaded.task.dataset["default"]["test"]["corpus"] is data


def test_the_result_is_valid_json_under_the_identity_given(tiny):
    tiny.write_sts("Mine", tiny.pairs())
    loaded = tiny.load("Mine")
    judged = verdict(loaded)
    written = json.loads(json.dumps(judged.mteb_result, allow_nan=False))
    assert written["dataset_revision"] == loaded.spec.revision
    assert written["scores"]["test"][0]["main_score"] == pytest.approx(judged.main_score, abs=1e-6)
    (main,) = [score for score in judged.scores if score.is_main]
    assert (main.metric, main.value, main.subset, main.split) == (
        "cosine_spearman",
        judged.main_score,
        "default",
        "test",
    )
    assert not any(score.metric == "main_score" for score in judged.scores)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["Ret", "Pairs"])
def test_an_embedding_that_is_not_finite_is_named(tiny, bad, name):
    tiny.write_retrieval("Ret")
    tiny.write_sts("Pairs", tiny.pairs())

    def lookup(role, texts):
        vectors = embed(texts)
        vectors[3, 1] = bad
        return vectors

    with pytest.raises(ArithmeticError, match=rf"hire on {name}: the embedding of \w+ row 3 .*(query 5|left 3)"):
        verdict(tiny.load(name), lookup, "hire")


@pytest.mark.parametrize("name", ["Ret", "Pairs"])
@pytest.mark.parametrize("length", [0.0, 1e-13, 1e25])
def test_an_embedding_without_a_direction_is_named(tiny, length, name):
    """sklearn gives the zero vector the cosine 0.5 with every other, and squares of 1e25 are no floats."""
    tiny.write_retrieval("Ret")
    tiny.write_sts("Pairs", tiny.pairs())

    def lookup(role, texts):
        vectors = embed(texts)
        vectors[2] *= length / np.linalg.norm(vectors[2])
        return vectors

    with pytest.raises(ArithmeticError, match=rf"hire on {name}: the embedding of \w+ row 2 .*has no cosine"):
        verdict(tiny.load(name), lookup, "hire")


@pytest.mark.parametrize("name", ["Ret", "Pairs"])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_embeddings_that_point_the_same_way_are_an_error_and_not_a_rank_of_rounding(tiny, scale, name):
    """Vectors that differ in length alone have the cosine 1, less or more what rounding makes of it."""
    tiny.write_retrieval("Ret")
    tiny.write_sts("Pairs", tiny.pairs())

    def lookup(role, texts):
        lengths = 1 + scale * np.arange(len(texts), dtype=np.float32)
        return np.outer(lengths, [0.3, -0.7, 0.1, 0.9]).astype(np.float32)

    with pytest.raises(ArithmeticError, match=rf"hire on {name}: all \d+ \w+ embeddings point the same way"):
        verdict(tiny.load(name), lookup, "hire")


def test_texts_that_are_alike_may_have_embeddings_that_are(tiny):
    pairs = [{"sentence1": "the cat", "sentence2": f"dog {i}", "score": i / 2} for i in range(6)]
    tiny.write_sts("Pairs", pairs)
    assert math.isfinite(verdict(tiny.load("Pairs")).main_score)


def test_ties_and_identical_documents_are_ranked_by_id_as_trec_does(tiny):
    """Two equal documents, the second one relevant: the higher id stands first."""
    corpus = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(["a cat", "a cat", "w1", "w2"])]
    queries = [{"_id": "q0", "text": "a cat"}, {"_id": "q1", "text": "w1"}]
    for relevant, expected in (("d1", 1.0), ("d0", 1 / math.log2(3))):
        qrels = [{"query-id": "q0", "corpus-id": relevant, "score": 1}]
        qrels += [{"query-id": "q1", "corpus-id": "d2", "score": 1}]
        tiny.write_retrieval(f"Tied{relevant}", corpus=corpus, queries=queries, qrels=qrels)
        judged = verdict(tiny.load(f"Tied{relevant}"))
        assert judged.main_score == pytest.approx((expected + 1) / 2, abs=1e-5)


def test_a_query_without_a_relevant_document_counts_as_zero_and_an_unjudged_one_not_at_all(tiny):
    corpus = [{"_id": f"d{i}", "title": "", "text": f"w{i}"} for i in range(4)]
    queries = [{"_id": f"q{i}", "text": f"w{i}"} for i in range(3)]
    qrels = [{"query-id": "q0", "corpus-id": "d0", "score": 1}, {"query-id": "q1", "corpus-id": "d1", "score": 0}]
    tiny.write_retrieval("Half", corpus=corpus, queries=queries, qrels=qrels)
    judged = verdict(tiny.load("Half"))
    assert judged.samples.parts[0].values.tolist() == [1.0, 0.0]
    assert judged.main_score == 0.5
    json.dumps(judged.mteb_result, allow_nan=False)


def test_a_wrong_number_of_rows_is_an_error(tiny):
    tiny.write_sts("Pairs", tiny.pairs())
    with pytest.raises(ValueError, match=r"shape \(5, 16\) for 6 texts"):
        verdict(tiny.load("Pairs"), lambda role, texts: embed(texts)[1:])


def test_nothing_is_printed(tiny, capfd):
    tiny.write_retrieval("Mine")
    verdict(tiny.load("Mine"))
    assert capfd.readouterr() == ("", "")


def tiny_sentence_transformer(folder, pooling):
    """A random two-layer BERT with the given pooling, built without any file of the hub."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "right", *map(str, range(20))]
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    set_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(folder)
    return SentenceTransformer(modules=[Transformer(str(folder)), Pooling(16, pooling)], device="cpu")


def stock_score(model, task, cache):
    import mteb

    options = {
        "co2_tracker": False,
        "show_progress_bar": False,
        "encode_kwargs": {"show_progress_bar": False},
    }
    # a stored result is rounded to six places
    return round(float(mteb.evaluate(model, [task], cache=cache, **options)[0].get_score()), 6)


def our_score(model, loaded, name):
    def lookup(role, texts):
        return model.encode(list(texts), show_progress_bar=False)

    revision = hashlib.sha256(name.encode()).hexdigest()
    return judge(loaded, lookup, name=name, revision=revision, experiment={"pooling": name}).main_score


def test_two_variants_of_one_backbone_never_share_a_score(tiny, tmp_path):
    from mteb.cache import ResultCache

    tiny.write_sts("STS13", tiny.pairs(15))
    loaded = tiny.load("STS13")
    mean, cls = (tiny_sentence_transformer(tmp_path / "model", pooling) for pooling in ("mean", "cls"))
    true_mean, true_cls = (stock_score(model, loaded.task, None) for model in (mean, cls))
    assert true_mean != true_cls

    cache = ResultCache(tmp_path / "cache")
    assert stock_score(mean, loaded.task, cache) == true_mean
    # the trap: both are "no_model_name/available", so mteb gives the second one the first one's score
    assert stock_score(cls, loaded.task, cache) == true_mean

    assert our_score(mean, loaded, "mean") == pytest.approx(true_mean, abs=1e-6)
    assert our_score(cls, loaded, "cls") == pytest.approx(true_cls, abs=1e-6)


def test_changed_data_never_get_the_score_of_the_old(tiny, tmp_path):
    from mteb.cache import ResultCache

    rows, cache = tiny.pairs(15), ResultCache(tmp_path / "cache")
    tiny.write_sts("STS13", rows)
    old = tiny.load("STS13")
    stored = stock_score(StockEncoder(), old.task, cache)
    tiny.write_sts("STS13", [{**row, "score": (7 * i) % 15} for i, row in enumerate(rows)])
    new = tiny.load("STS13")
    true = stock_score(StockEncoder(), new.task, None)
    assert stored != true
    # the trap: the revision of the data has changed, yet the stored score comes back
    assert stock_score(StockEncoder(), new.task, cache) == stored
    assert verdict(new).main_score == pytest.approx(true, abs=1e-6)
    assert old.spec.revision != new.spec.revision


def test_one_method_never_gets_the_vectors_of_another(tiny, tmp_path):
    from mteb.models.cache_wrappers import CachedEmbeddingWrapper

    tiny.write_sts("STS13", tiny.pairs(15))
    loaded = tiny.load("STS13")
    lookups = {name: lambda role, texts, seed=seed: embed(texts, seed) for seed, name in enumerate(("one", "two"))}
    models = {name: finished(lookup, name) for name, lookup in lookups.items()}
    true = {name: stock_score(model, loaded.task, None) for name, model in models.items()}
    assert true["one"] != true["two"]

    assert stock_score(CachedEmbeddingWrapper(models["one"], tmp_path), loaded.task, None) == true["one"]
    # the trap: mteb's cache of embeddings knows the task and the text, not the model
    assert stock_score(CachedEmbeddingWrapper(models["two"], tmp_path), loaded.task, None) == true["one"]

    for name, lookup in lookups.items():
        assert verdict(loaded, lookup, name=name).main_score == pytest.approx(true[name], abs=1e-6)


def finished(lookup, name):
    return FinishedEncoder(lookup, name=name, revision="r", experiment={}, task="STS13")
