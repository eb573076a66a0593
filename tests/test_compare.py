from __future__ import annotations

import argparse
import re

import numpy as np
import pytest

from fusebench.benchmarks.mteb_bridge import judge
from fusebench.benchmarks.record import TextSetSpec
from fusebench.benchmarks.sample_files import sample_path, write_samples
from fusebench.errors import InputError
from fusebench.study.compare import show
from fusebench.study.compare_choice import variants
from tests.scored_results import Results
from tests.tiny_cells import embed


def compare(results, *methods, **flags):
    return show(
        argparse.Namespace(
            **{
                "methods": list(methods),
                "baseline": None,
                "suite": None,
                "tasks": None,
                "out": results.out,
                "data_dir": results.tiny.root,
                "setting": [],
                "every_pair": False,
                "plugin": [],
                "resamples": 400,
                "seed": 0,
                **flags,
            }
        )
    )


@pytest.fixture
def results(tiny, tmp_path):
    return Results(tiny, tmp_path / "out")


def cells(line):
    return [cell.strip() for cell in line.split("│")[1:-1]]


def rows(text):
    """The rows of the first table by their first cell."""
    return {row[0]: row for row in map(cells, text.splitlines()) if len(row) > 3}


def test_two_methods_are_compared_task_by_task_and_on_average(results, capsys):
    good = {name: results.add("mean", 0.1, tasks=(name,)).main_score for name in ("Pairs", "Ret")}
    bad = {name: results.add("cls", 2.0, tasks=(name,)).main_score for name in ("Pairs", "Ret")}
    assert compare(results, "mean", "cls") == 0
    printed = capsys.readouterr().out
    table = rows(printed)
    assert list(table) == ["Pairs", "Ret", "overall"]
    for name in good:
        assert table[name][1:4] == [
            f"{100 * good[name]:.2f}",
            f"{100 * bad[name]:.2f}",
            f"{100 * (good[name] - bad[name]):+.2f}",
        ]
    difference = np.mean([good[name] - bad[name] for name in good])
    assert table["overall"][3] == f"{100 * difference:+.2f}"
    low, high = map(float, table["Pairs"][4].split(" to "))
    assert low < float(table["Pairs"][3]) < high
    assert table["Pairs"][5] == "<1/400"
    assert "Pairs: 60 items, each by itself" in printed


def test_the_order_of_the_names_changes_the_sign_alone(results, capsys):
    for method, noise in (("mean", 0.5), ("cls", 0.7)):
        results.add(method, noise)
    compare(results, "mean", "cls")
    one = rows(capsys.readouterr().out)["Pairs"]
    compare(results, "cls", "mean")
    other = rows(capsys.readouterr().out)["Pairs"]
    assert float(one[3]) == -float(other[3])
    assert one[5] == other[5]


def test_pairs_that_share_texts_get_intervals_over_clusters_too(results, capsys):
    texts = [f"w{i} w{i % 5} w{i % 3}" for i in range(12)]
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    results.tiny.write_sts(
        "Lee",
        [{"sentence1": texts[i], "sentence2": texts[j], "score": float((i * j) % 7)} for i, j in pairs],
    )
    for method, noise in (("mean", 0.5), ("cls", 0.7)):
        results.add(method, noise, tasks=("Lee",))
    compare(results, "mean", "cls")
    printed = capsys.readouterr().out
    assert "Lee: 66 items of 12 texts, which are drawn" in printed
    (row,) = rows(printed).values()
    of_items, of_clusters = ([float(end) for end in row[k].split(" to ")] for k in (4, 8))
    assert of_clusters[1] - of_clusters[0] > of_items[1] - of_items[0]


def test_a_family_lists_every_method_against_the_baseline(results, capsys):
    for method, noise in (("mean", 0.1), ("cls", 0.15), ("max", 3.0)):
        results.add(method, noise)
    results.add("mean-sqrt-len", 0.1, equal_to="mean")
    results.add("other", 0.1, tasks=("Ret",))
    compare(results, baseline="mean", every_pair=True, tasks=[["Pairs"]])
    printed = capsys.readouterr().out
    table = {cells(line)[0]: cells(line) for line in printed.splitlines() if len(cells(line)) == 10}
    assert set(table) == {"mean", "cls", "max"}
    assert table["mean"][3] == "baseline"
    assert float(table["max"][7]) < 0
    assert table["max"][6] == "<1/400"
    assert table["mean"][-1] == "a"
    assert not set(table["max"][-1]) & set(table["mean"][-1])
    assert "without records of every task: other" in printed
    assert "equal to another by construction: mean-sqrt-len" in printed
    assert "EXPLORATORY" in printed
    assert "adjusted for all 2 comparisons" in printed


def test_seeds_are_matched_and_said(results, capsys):
    for seed in (0, 1, 2):
        results.add("hire", 0.5, seed=seed)
    for seed in (1, 2, 3):
        results.add("scalar-mix", 0.6, seed=seed)
    results.add("mean", 0.1)
    compare(results, "hire", "scalar-mix")
    assert "seeds 1, 2, matched" in capsys.readouterr().out
    compare(results, "hire", "mean")
    assert "seeds 0, 1, 2, matched" in capsys.readouterr().out
    compare(results, baseline="mean")
    assert "methods with different seeds" in capsys.readouterr().out


def test_one_seed_is_said_to_hide_the_noise_between_seeds(results, capsys):
    results.add("hire", 0.5, seed=0)
    results.add("mean", 0.1)
    compare(results, "hire", "mean")
    assert "seed 0 only: noise between seeds is in no interval and no p" in capsys.readouterr().out


def test_an_unknown_method_suggests_the_nearest(results):
    results.add("mean", 0.1)
    results.add("first-last", 0.2)
    with pytest.raises(InputError, match=r"no record of a method 'frist-last'. Did you mean 'first-last'\?"):
        compare(results, "mean", "frist-last")


def test_a_method_may_be_named_as_it_was_run(results, capsys):
    results.add("mean", 0.1)
    results.add("hire+batch-softmax", 0.2)
    compare(results, "hire", "mean")
    assert "A: hire+batch-softmax" in capsys.readouterr().out
    compare(results, baseline="hire")
    assert "hire+batch-softmax" in capsys.readouterr().out
    with pytest.raises(InputError, match="has one setting only: name two methods"):
        compare(results, "hire", "hire+batch-softmax")


def test_several_settings_ask_for_a_choice_and_a_choice_answers(results, capsys):
    results.add("mean", 0.1)
    results.add("mean", 0.1, max_length=64)
    results.add("cls", 0.2)
    results.add("cls", 0.2, max_length=64)
    with pytest.raises(InputError, match=r"several settings fit: .*max length: 32.*--setting") as caught:
        compare(results, "mean", "cls")
    digest = re.search(r"mean --setting (\w+) \(max length: 64\)", str(caught.value)).group(1)
    compare(results, "mean", "cls", setting=[digest])
    assert "A: mean" in capsys.readouterr().out
    with pytest.raises(InputError, match="--setting zzz: no record has it"):
        compare(results, "mean", "cls", setting=["zzz"])
    with pytest.raises(InputError, match="'mean' has several settings"):
        compare(results, baseline="mean")


def test_what_was_fitted_differently_may_be_compared_and_what_read_other_lengths_may_not(results, capsys):
    results.add("mean", 0.1)
    results.add("mean+whiten", 0.1, fit=TextSetSpec(name="texts", sha256="a" * 64, count=9), regime="frozen")
    compare(results, "mean", "mean+whiten")
    assert "Pairs" in rows(capsys.readouterr().out)
    results.add("cls", 0.1, max_length=64)
    with pytest.raises(InputError, match=r"no setting in common: .*max length: 32.*max length: 64"):
        compare(results, "mean", "cls")
    assert len({variant.digest for variant in variants(results.store.records())}) == 3


def test_other_data_are_refused(results):
    for method in ("mean", "cls"):
        results.add(method, 0.1)
    results.tiny.write_sts("Pairs", results.rows[:-1])
    with pytest.raises(InputError, match=r"scored on other data of Pairs .* --data-dir"):
        compare(results, "mean", "cls")


def test_missing_and_foreign_samples_are_refused(results):
    results.add("mean", 0.1)
    record = results.add("cls", 0.2, samples=False)
    with pytest.raises(InputError, match="'cls' on Pairs has a score but no samples"):
        compare(results, "mean", "cls")
    loaded = results.tiny.load("Pairs")
    other = judge(loaded, embed, name="x", revision="r", experiment={})
    write_samples(results.out, record, other.samples)
    with pytest.raises(InputError, match=r"'cls' on Pairs give .* the record says"):
        compare(results, "mean", "cls")
    sample_path(results.out, record).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="truncated"):
        compare(results, "mean", "cls")


def test_limited_records_are_compared_on_the_limited_data(results, capsys):
    for method in ("mean", "cls"):
        results.add(method, 0.3, limit=30)
    compare(results, "mean", "cls")
    assert "Pairs: 30 items" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("methods", "flags", "message"),
    [
        (("mean",), {}, "two methods, A B, or --baseline"),
        ((), {}, "two methods, A B, or --baseline"),
        (("mean", "cls"), {"baseline": "mean"}, "two methods, A B, or --baseline"),
        (("mean", "cls"), {"tasks": [["Ret"]]}, "no records of Ret"),
        (("mean", "cls"), {"tasks": [["Pairs"]], "suite": "mteb-sts"}, "give one of them"),
        (("mean", "cls"), {"suite": "mteb-sts"}, "no task in common"),
        (("mean", "cls"), {"suite": "mteb-stz"}, "Did you mean 'mteb-sts'"),
        (("mean", "cls"), {"resamples": 5}, "--resamples 5 are too few"),
        (("mean", "mean"), {}, "has one setting only"),
    ],
)
def test_a_wrong_request_says_what_to_do(results, methods, flags, message):
    for method in ("mean", "cls"):
        results.add(method, 0.3)
    with pytest.raises(InputError, match=message):
        compare(results, *methods, **flags)


def test_a_folder_without_records_is_named(results, tmp_path):
    with pytest.raises(InputError, match="holds no records"):
        compare(results, "mean", "cls", out=tmp_path / "nothing")
