"""Sub-corpora and parts of STS tasks are joined as SentEval joins them, and read from the data alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from fusebench.benchmarks.pair_parts import aggregated, semeval_test, sub_corpora
from fusebench.errors import InputError

GOLD = np.array([0.0, 1, 2, 3, 4, 5, 0, 5, 2])
COSINES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9, 0.0, 0.2], dtype=np.float32)
PARTS = ["rising"] * 6 + ["falling"] * 2 + ["rising"]


def test_all_is_one_correlation_over_every_pair():
    assert aggregated(GOLD, COSINES, PARTS, "all") == pytest.approx(spearmanr(GOLD, COSINES)[0])


def test_mean_counts_every_part_alike_and_wmean_by_its_pairs():
    first = spearmanr(GOLD[[0, 1, 2, 3, 4, 5, 8]], COSINES[[0, 1, 2, 3, 4, 5, 8]])[0]
    assert aggregated(GOLD, COSINES, PARTS, "mean") == pytest.approx((first - 1) / 2)
    assert aggregated(GOLD, COSINES, PARTS, "wmean") == pytest.approx((7 * first - 2) / 9)


def test_a_part_without_a_correlation_is_an_error_and_no_number():
    with pytest.raises(InputError, match="falling"):
        aggregated(GOLD, np.where(np.array(PARTS) == "falling", 0.5, COSINES), PARTS, "wmean")


def pairs(*texts, **columns):
    return [
        {"sentence1": text, "sentence2": f"{text} too", "score": float(i), **{k: v[i] for k, v in columns.items()}}
        for i, text in enumerate(texts)
    ]


def test_sub_corpora_are_the_column_subset_of_the_test_file(tiny):
    tiny.write_sts("STS12", pairs("a", "b", "c", subset=["MSRpar", "MSRvid", "MSRpar"]))
    assert sub_corpora(tiny.load("STS12"), tiny.root) == ("MSRpar", "MSRvid", "MSRpar")


def test_a_file_without_sub_corpora_is_refused(tiny):
    tiny.write_sts("STS12", pairs("a", "b", "c"))
    with pytest.raises(InputError, match="column 'subset'"):
        sub_corpora(tiny.load("STS12"), tiny.root)


def test_sub_corpora_of_other_pairs_than_were_scored_are_refused(tiny):
    tiny.write_sts("STS12", pairs("a", "b", "c", subset=["x", "x", "y"]))
    loaded = tiny.load("STS12")
    tiny.write_sts("STS12", pairs("b", "a", "c", subset=["x", "x", "y"]))
    with pytest.raises(InputError, match="other pairs"):
        sub_corpora(loaded, tiny.root)


def test_hub_data_name_no_sub_corpora(tiny):
    tiny.write_sts("STS12", pairs("a", "b", "c", subset=["x", "x", "y"]))
    with pytest.raises(InputError, match="--data-dir"):
        sub_corpora(tiny.load("STS12"), None)


def sick(tiny, every, test):
    """A folder of SICK with SemEval's test part as a config of its own."""
    folder = tiny.write_sts("SICK-R", every)
    tiny.write_jsonl(folder / "test_semeval.jsonl", test)
    configs = [
        {"config_name": "default", "default": True, "data_files": [{"split": "test", "path": "test.jsonl"}]},
        {"config_name": "semeval", "data_files": [{"split": "test", "path": "test_semeval.jsonl"}]},
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return tiny.load("SICK-R")


def test_pairs_of_semevals_test_part_are_found_among_all_and_repeated_ones_counted_once(tiny):
    every = pairs("a", "b", "c", "d")
    again = every[1]
    loaded = sick(tiny, [*every, again], [{**every[3], "pair_ID": 9}, {**again, "pair_ID": 4}])
    assert semeval_test(loaded, tiny.root).tolist() == [False, True, False, True, False]


def test_a_test_part_that_is_not_among_the_pairs_is_refused(tiny):
    every = pairs("a", "b", "c", "d")
    with pytest.raises(InputError, match="1 pairs of SemEval's test part"):
        semeval_test(sick(tiny, every, [{**every[0], "score": 4.9}]), tiny.root)


def test_data_without_a_test_part_are_refused(tiny):
    tiny.write_sts("SICK-R", pairs("a", "b", "c", "d"))
    with pytest.raises(InputError, match="config 'semeval'"):
        semeval_test(tiny.load("SICK-R"), tiny.root)
