from __future__ import annotations

import pytest

from fusebench.errors import InputError
from fusebench.study.dev_rows import load_dev


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("a,b,score\none,two,1\nthree,four,0\nfive,six,0.5\n", "scored-pairs"),
        ("a,p,n\none,two,three\nfour,five,six\n", "triplets"),
        ("a,b\none,two\nthree,four\n", "pairs"),
    ],
)
def test_dev_rows_are_of_the_best_kind_there_is(tmp_path, content, kind):
    (tmp_path / "a.csv").write_text(content)
    assert load_dev(str(tmp_path / "a.csv"), None).kind == kind


def test_embedded_pairs_are_taken_before_the_sentences_beside_them():
    assert load_dev("lee-background", None, 20).spec.kind == "pairs"
    assert load_dev("lee-background", None, 20).spec.count == 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "one\ntwo\n", r"--dev a\.txt holds sentences, .* must know what belongs together"),
        ("a.csv", "a,b,label\none,two,neutral\n", r"holds sentences \(pairs whose 'label' is no number"),
        ("a.csv", "a,b,score\none,two,1\nthree,four,0\n", "2 scored pairs are too few"),
        ("a.csv", "a,b,score\none,two,1\nthree,four,1\nfive,six,1\n", "all 3 pairs have one score"),
        ("a.csv", "a,b\none,two\nthree,two\n", "there is one positive"),
        ("a.csv", "a,b\n", r"it has 0|--dev .*holds no rows"),
    ],
)
def test_rows_that_tell_no_method_from_another_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_dev(str(tmp_path / name), None)


def test_a_limit_may_leave_too_few(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,score\none,two,1\nthree,four,0\nfive,six,0.5\n")
    with pytest.raises(InputError, match="2 scored pairs are too few"):
        load_dev(str(tmp_path / "a.csv"), None, 2)
    with pytest.raises(InputError, match="limit of 0 rows leaves nothing of --dev"):
        load_dev(str(tmp_path / "a.csv"), None, 0)


def test_an_unknown_set_is_refused_by_the_flag_it_came_with():
    with pytest.raises(InputError, match="--dev stsb-def: no such set"):
        load_dev("stsb-def", None)


def test_the_dev_part_of_the_sts_benchmark_is_read_as_it_is(data_dir):
    rows = load_dev("stsb-dev", data_dir)
    assert (rows.spec.name, rows.kind, rows.spec.count, rows.scale) == ("stsb-dev", "scored-pairs", 1500, (0.0, 5.0))
