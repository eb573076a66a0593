import pytest

from fusebench.benchmarks.short_ranking import ShortRanking, short_rankings_suffice


@pytest.fixture
def task(tiny):
    tiny.write_retrieval("Mine")
    return tiny.load("Mine").task


def test_a_short_ranking_tells_few_documents_and_all_scores():
    ranking = ShortRanking(["a", "b", "c"], [0.9, 0.5, 0.1], 2)
    assert dict(ranking) == {"a": 0.9, "b": 0.5}
    assert list(ranking.values()) == [0.9, 0.5, 0.1]


def test_a_query_without_a_judged_document_is_still_measured():
    import pytrec_eval

    ranking = ShortRanking(["a", "b"], [0.9, 0.5], 0)
    measured = pytrec_eval.RelevanceEvaluator({"q": {"z": 1}}, {"ndcg_cut.10"}).evaluate({"q": ranking})
    assert measured == {"q": {"ndcg_cut_10": 0.0}}


def test_short_rankings_suffice_for_the_mteb_that_is_installed(task):
    assert short_rankings_suffice(task)


def test_tasks_that_read_rankings_otherwise_get_whole_ones(task):
    from mteb.abstasks import AbsTaskRetrieval

    task.skip_first_result = True
    assert not short_rankings_suffice(task)

    class WithMetricsOfItsOwn(AbsTaskRetrieval):
        metadata = task.metadata

        def task_specific_scores(self, scores, qrels, results, hf_split, hf_subset):
            return {"found": sum(len(found) for found in results.values())}

    assert not short_rankings_suffice(WithMetricsOfItsOwn())


def test_an_mteb_whose_metrics_see_the_difference_gets_whole_rankings(task, monkeypatch):
    from mteb._evaluators import retrieval_metrics

    from fusebench.benchmarks import short_ranking

    true = retrieval_metrics.calculate_retrieval_scores
    short_ranking._measured_alike.cache_clear()
    monkeypatch.setattr(
        retrieval_metrics,
        "calculate_retrieval_scores",
        lambda results, qrels, cuts: (true(results, qrels, cuts), [len(found) for found in results.values()]),
    )
    try:
        assert not short_rankings_suffice(task)
    finally:
        short_ranking._measured_alike.cache_clear()
