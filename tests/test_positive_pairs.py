"""Which pairs of a task belong together."""

from __future__ import annotations

from fusebench.benchmarks.positive_pairs import positive_pairs


def test_of_an_sts_task_they_are_the_pairs_in_the_top_fifth_of_the_scores_range(tiny):
    scores = [0, 1, 4, 4.01, 5]
    rows = [{"sentence1": f"left {i}", "sentence2": f"right {i}", "score": score} for i, score in enumerate(scores)]
    tiny.write_sts("Mine", rows)
    found = positive_pairs(tiny.load("Mine"))
    assert [(left[1], right[1]) for left, right in found.pairs] == [("left 3", "right 3"), ("left 4", "right 4")]
    assert found.rule == "gold score above 4, the top fifth of 0 to 5"


def test_another_scale_has_a_border_of_its_own(tiny):
    rows = [{"sentence1": f"l{i}", "sentence2": f"r{i}", "score": i / 10} for i in range(11)]
    tiny.write_sts("Mine", rows)
    assert [left[1] for left, _ in positive_pairs(tiny.load("Mine")).pairs] == ["l9", "l10"]


def test_of_a_retrieval_task_they_are_queries_and_documents_judged_relevant(tiny):
    grades = {"d150": 2, "d151": 0, "d3": 1}
    tiny.write_retrieval(
        "Search", qrels=[{"query-id": "q2", "corpus-id": d, "score": grade} for d, grade in grades.items()]
    )
    found = positive_pairs(tiny.load("Search")).pairs
    assert found == (
        (("query", "query 2"), ("document", "body 150")),
        (("query", "query 2"), ("document", "Title 3 body 3")),
    )
