"""Which texts and pairs of a task are measured."""

from __future__ import annotations

from fusebench.benchmarks.record import Prompts
from fusebench.study.diagnosis_texts import draw


def test_few_enough_texts_are_all_taken_once_under_their_prompts(tiny):
    rows = [*tiny.pairs(), {"sentence1": "left 0", "sentence2": "left 1", "score": 4.5}]
    tiny.write_sts("Mine", rows)
    found = draw(tiny.load("Mine"), Prompts(text="say: "), limit=100, seed=0)
    assert found.texts == tuple(f"say: {side} {i}" for side in ("left", "right") for i in range(6))
    assert (found.left, found.right) == (("say: left 0",), ("say: left 1",))  # 5 / 2 is below the border of 3.6
    assert (found.texts_of_task, found.pairs_of_task) == (12, 1)


def test_queries_and_documents_have_prompts_of_their_own(tiny):
    tiny.write_retrieval("Search")
    found = draw(tiny.load("Search"), Prompts(query="q: ", document="d: "), limit=1000, seed=0)
    assert found.left[0] == "q: query 2"
    assert found.right[0] == "d: body 152"
    assert set(found.left) | set(found.right) <= set(found.texts)


def test_too_many_are_drawn_by_the_seed_and_stay_in_order(tiny):
    tiny.write_retrieval("Search")
    task = tiny.load("Search")
    every = draw(task, Prompts(), limit=1000, seed=0)
    once, again, other = (draw(task, Prompts(), limit=5, seed=seed) for seed in (1, 1, 2))
    assert once.texts == again.texts != other.texts
    assert (once.left, once.right) == (again.left, again.right)
    assert len(set(once.texts)) == len(once.left) == 5
    assert list(once.texts) == sorted(once.texts, key=every.texts.index)
    assert set(zip(once.left, once.right, strict=True)) < set(zip(every.left, every.right, strict=True))
    assert (once.texts_of_task, once.pairs_of_task) == (len(every.texts), 6)
