"""One method as other libraries use it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import fusebench
from fusebench.benchmarks.mteb_bridge import quiet
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.errors import InputError
from fusebench.study.loading import load_method
from tests.tiny_gate import bench, make_world
from tests.tiny_models import folder_of

TEXTS = ["the cat sat on the mat.", "a dog", "w1 w2 w3"]


def load(sentence="mean", **settings):
    return fusebench.load(sentence, str(folder_of("bert")), device="cpu", **settings)


@pytest.fixture(scope="module")
def embedder():
    return load("first-last")


@pytest.fixture(scope="module")
def vectors(embedder):
    return embedder.encode(TEXTS)


def test_importing_the_package_imports_nothing_heavy():
    heavy = "torch transformers mteb pandas numpy".split()  # noqa: SIM905
    code = f"import fusebench, sys; assert callable(fusebench.run); sys.exit(any(n in sys.modules for n in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_one_text_is_a_vector_and_many_are_rows(embedder, vectors):
    assert (vectors.shape, vectors.dtype) == ((3, 32), np.float32)
    np.testing.assert_array_equal(embedder.encode(TEXTS[1]), vectors[1])
    np.testing.assert_array_equal(embedder.encode(np.array(TEXTS)), vectors)
    assert embedder.encode([]).shape == (0, 32)


def test_it_is_what_the_method_says(embedder, vectors):
    assert embedder.sentence == "first-last"
    expected = (load("mean(layer=1)").encode(TEXTS) + load("mean").encode(TEXTS)) / 2
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


def test_fit_texts_may_be_chosen(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "own.txt").write_text("\n".join(f"w{i} the w{2 * i}" for i in range(20)))
    own = load("mean+standardize", fit="own.txt", data_dir=tmp_path).encode(TEXTS)
    assert np.abs(own - load("mean+standardize").encode(TEXTS)).max() > 0.1


# ---- sentence-transformers


def test_utilities_of_sentence_transformers_take_its_vectors_and_itself(embedder, vectors):
    from sentence_transformers import util

    tensor = embedder.encode(TEXTS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    torch.testing.assert_close(util.cos_sim(tensor, tensor).numpy(), util.cos_sim(vectors, vectors).numpy())
    hits = util.semantic_search(embedder.encode(TEXTS[0]), vectors, top_k=1)
    assert hits[0][0]["corpus_id"] == 0
    mined = util.paraphrase_mining(embedder, [*TEXTS, TEXTS[0]])
    assert sorted(mined[0][1:]) == [0, 3]
    assert mined[0][0] == pytest.approx(1, abs=1e-6)


def test_prompts_and_dimensions_are_obeyed_or_refused(embedder, vectors):
    np.testing.assert_array_equal(embedder.encode(["dog"], prompt="a "), vectors[1:2])
    np.testing.assert_array_equal(embedder.encode(TEXTS, truncate_dim=5), vectors[:, :5])
    with pytest.raises(InputError, match="no prompt named 'query'"):
        embedder.encode(TEXTS, prompt_name="query")


# ---- LangChain


def test_langchain_gets_lists_of_floats(embedder, vectors):
    documents = embedder.embed_documents(TEXTS)
    assert all(type(number) is float for row in documents for number in row)
    np.testing.assert_array_equal(np.float32(documents), vectors)
    assert embedder.embed_query(TEXTS[2]) == documents[2]


def test_llama_index_gets_the_same_by_its_names(embedder):
    documents = embedder.embed_documents(TEXTS)
    assert embedder.get_text_embedding_batch(TEXTS) == documents
    assert embedder.get_text_embedding(TEXTS[1]) == embedder.get_query_embedding(TEXTS[1]) == documents[1]


# ---- scikit-learn


def test_it_is_a_step_of_a_pipeline_that_is_cloned_and_searched(embedder):
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    texts = [f"the {animal} w{i}" for i in range(12) for animal in ("cat", "dog")]
    pipeline = make_pipeline(embedder, LogisticRegression(max_iter=500))
    pipeline.fit(texts, [0, 1] * 12)
    assert pipeline.score(texts, [0, 1] * 12) == 1
    assert clone(pipeline).steps[0][1] is embedder
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(texts, [0, 1] * 12)
    assert search.best_score_ > 0.5


def test_it_stands_beside_other_transformers(embedder, vectors):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import make_union

    union = make_union(embedder, CountVectorizer())
    found = union.fit_transform(TEXTS).toarray()
    np.testing.assert_array_equal(np.float32(found[:, :32]), vectors)
    np.testing.assert_array_equal(embedder.fit(TEXTS).transform(np.array(TEXTS, dtype=object)), vectors)


# ---- mteb


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def test_mteb_gives_it_the_scores_of_our_records(world, tmp_path):
    import mteb

    bench(world, tmp_path, "last-k-mean(k=2)")
    model = fusebench.load("last-k-mean(k=2)", str(world / "models" / "tiny-bert"), device="cpu").as_mteb()
    for record in Store(tmp_path).records():
        (source,) = find_tasks([record.spec.task.name], world / "data")
        task = load_task(source, limit=None, allow_empty=False).task
        with quiet():
            result = mteb.evaluate(model, [task], cache=None, co2_tracker=False, show_progress_bar=False)[0]
        assert result.get_score() == pytest.approx(record.main_score, abs=1e-5)


def test_mteb_knows_any_two_that_embed_otherwise_apart(tmp_path):
    (tmp_path / "fit.txt").write_text("\n".join(f"w{i} the w{2 * i}" for i in range(20)))
    models = [
        *(load("mean"), load("mean(layer=1)"), load("mean", max_length=9), load("mean+standardize")),
        *(load("mean+standardize", fit=str(tmp_path / "fit.txt")), fusebench.load("mean", str(folder_of("roberta")))),
    ]
    metas = [model.as_mteb().mteb_model_meta for model in models]
    assert len({(meta.name, meta.revision) for meta in metas}) == len(models)
    assert load("mean").as_mteb().mteb_model_meta.revision == metas[0].revision


def test_several_methods_at_once_are_refused():
    with pytest.raises(InputError, match="names 4 methods"):
        load_method("mean@each", str(folder_of("bert")), device="cpu", max_length=None)
