"""Real MTEB data through our whole path and through stock mteb with sentence-transformers."""

from __future__ import annotations

import warnings

import pytest
import torch

from fusebench.benchmarks.store import Store
from fusebench.methods.backbone_source import DEFAULT, find_backbone
from fusebench.study.options import Options
from fusebench.study.plan import make_plan
from fusebench.study.run import run

# mteb 2 and sentence-transformers 5 on these revisions of the data, float32 on a processor
REFERENCE = {"BIOSSES": 0.81254, "STSBenchmark": 0.82032}


@pytest.fixture(scope="module")
def folders(data_dir):
    lacking = [name for name in REFERENCE if not (data_dir / name).is_dir()]
    if lacking:
        pytest.skip(f"no {' and '.join(lacking)} in {data_dir}")
    return data_dir


@pytest.fixture(scope="module")
def ours(folders, tmp_path_factory):
    """Records of `mean` and of the model's own pooling, which is `mean+normalize`, by method and task."""
    store = Store(tmp_path_factory.mktemp("results"))
    options = Options(methods=("mean", "native"), tasks=tuple(REFERENCE), data_dir=folders, device="cpu")
    outcome = run(make_plan(options), store)
    assert not outcome.failures
    return {(record.spec.method.name, record.spec.task.name): record for record in store.records()}


@pytest.fixture(scope="module")
def stock(folders):
    """Main scores of stock mteb: its own task, its own loading, its own wrapper of SentenceTransformer."""
    import mteb
    from mteb.models.model_meta import ModelMeta
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    sentence_transformer = SentenceTransformer(str(find_backbone(DEFAULT).folder), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mteb asks sentence-transformers by an old name
        model = SentenceTransformerEncoderWrapper(sentence_transformer)
    model.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "stock/minilm", "revision": "stock"})
    tasks = []
    for name in REFERENCE:
        task = mteb.get_task(name)
        dataset = {"path": str(folders / name), "revision": "local"}
        task.metadata = task.metadata.model_copy(update={"dataset": dataset})
        tasks.append(task)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on busy cores two threads of small batches wait for each other most of the time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = mteb.evaluate(
            model, tasks, cache=None, co2_tracker=False, encode_kwargs={"batch_size": 32}, show_progress_bar=False
        )
    torch.set_num_threads(threads)
    return {result.task_name: result for result in results}


@pytest.mark.parametrize("task", REFERENCE)
def test_mean_is_what_stock_mteb_and_sentence_transformers_give(ours, stock, task):
    assert ours["mean", task].main_score == pytest.approx(float(stock[task].get_score()), abs=1e-4)


@pytest.mark.parametrize("task", REFERENCE)
def test_every_metric_of_the_models_own_pooling_is_that_of_stock_mteb(ours, stock, task):
    ((entry,),) = stock[task].scores.values()
    for score in ours["mean+normalize", task].scores:
        assert score.value == pytest.approx(entry[score.metric], abs=1e-4 + 1e-4 * abs(entry[score.metric]))
    assert sum(score.is_main for score in ours["mean+normalize", task].scores) == 1


@pytest.mark.parametrize("task", REFERENCE)
def test_mean_is_the_published_reference(ours, task):
    assert ours["mean", task].main_score == pytest.approx(REFERENCE[task], abs=5e-4)


@pytest.mark.parametrize("task", REFERENCE)
def test_the_models_own_pooling_is_the_mean_under_cosine(ours, task):
    native = ours["mean+normalize", task]
    assert native.main_score == pytest.approx(ours["mean", task].main_score, abs=1e-6)
    assert native.equal_to == "mean"


def test_the_record_says_which_data_and_model(ours, folders):
    spec = ours["mean", "STSBenchmark"].spec
    assert (spec.task.source, spec.task.splits, spec.task.metric) == ("folder", ("test",), "cosine_spearman")
    assert (spec.max_length, spec.max_length_source) == (256, "sentence_bert_config.json")
    assert ours["mean", "STSBenchmark"].counts.texts == 2 * 1379
    assert str(folders) not in ours["mean", "STSBenchmark"].model_dump_json()
