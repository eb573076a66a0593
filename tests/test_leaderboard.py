"""A board is arithmetic on records that may be compared, and says what a reader must know."""

import io
import math
import random
import re
from itertools import pairwise, permutations
from statistics import fmean, stdev

import pandas as pd
import pytest
from rich.console import Console

from fusebench.benchmarks.board_files import file_names, print_board, write_boards
from fusebench.benchmarks.leaderboard import borda_points, build_boards, competition_ranks
from fusebench.benchmarks.record import TextSetSpec
from fusebench.benchmarks.store import AskedSuite
from fusebench.errors import InputError
from tests.invented_records import make, training_spec

AB = AskedSuite("ab", "ab", ("A", "B"))
MIXED = AskedSuite("mixed", "Mixed", ("A", "B", "R"))


def scored(table):
    """Records of {method: {task: score}}."""
    return [make(method, task, value) for method, row in table.items() for task, value in row.items()]


def only_board(records, suite=AB):
    (board,) = build_boards(records, [suite])
    return board


def column(board, name):
    return dict(zip(board.table["method"], board.table[name], strict=True))


def caption(board):
    return "\n".join(board.caption)


def test_borda_gives_rows_beaten_plus_half_of_the_ties():
    # Task 1: x > y = z > w gives 3, 1.5, 1.5, 0.  Task 2: all tie, 1.5 each.
    assert borda_points([[9, 5], [7, 5], [7, 5], [1, 5]]) == [4.5, 3.0, 3.0, 1.5]
    assert borda_points([]) == []


def test_ties_share_the_smallest_rank():
    assert competition_ranks([4.5, 3.0, 3.0, 1.5]) == [1, 2, 2, 4]


def test_borda_points_agree_with_a_slow_count_and_sum_to_all_pairs():
    draw = random.Random(1)
    rows = [[draw.randrange(4) for _ in range(5)] for _ in range(6)]
    slow = [0.0] * 6
    for (i, row), (_, other) in permutations(enumerate(rows), 2):
        slow[i] += sum((a > b) + (a == b) / 2 for a, b in zip(row, other, strict=True))
    assert borda_points(rows) == slow
    assert sum(slow) == 5 * 6 * 5 / 2


def test_a_complete_board_has_averages_by_type_and_their_mean():
    records = scored({"x": {"A": 0.8, "B": 0.6}, "y": {"A": 0.5, "B": 0.5}})
    records += [make("x", "R", 0.1, type="Retrieval"), make("y", "R", 0.7, type="Retrieval")]
    board = only_board(records, MIXED)
    assert board.title == "Mixed"
    assert list(board.table.columns) == [
        *["rank", "method", "A", "B", "R", "STS avg", "Retrieval avg", "overall"],
        *["dims", "params added", "encode s"],
    ]
    assert column(board, "STS avg") == pytest.approx({"x": 70.0, "y": 50.0})
    assert column(board, "Retrieval avg") == pytest.approx({"x": 10.0, "y": 70.0})
    assert column(board, "overall") == pytest.approx({"x": 40.0, "y": 60.0})
    # x wins two tasks of three, although y leads by the overall mean.
    assert list(board.table["method"]) == ["x", "y"]
    assert column(board, "rank") == {"x": "1", "y": "2"}


def test_a_suite_of_one_type_has_no_overall_column():
    board = only_board(scored({"x": {"A": 0.8, "B": 0.6}}))
    assert board.averages == ("STS avg",)


def test_an_incomplete_suite_says_so_and_has_no_averages():
    suite = AskedSuite("ab", "ab", ("B", "C", "A", "D"))
    board = only_board(scored({"x": {"A": 0.1, "B": 0.1}, "y": {"A": 0.2, "B": 0.2}}), suite)
    assert board.title == "ab (2 of 4)"
    assert board.averages == ()
    assert board.tasks == ("B", "A")
    assert "2 of 4 tasks missing: C, D" in caption(board)
    assert list(board.table["method"]) == ["y", "x"]
    assert column(board, "rank") == {"y": "1", "x": "2"}


def test_a_method_that_lacks_a_task_is_shown_without_rank_or_average():
    board = only_board(scored({"x": {"A": 0.4, "B": 0.4}, "y": {"A": 0.9}, "z": {"A": 0.3, "B": 0.3}}))
    assert board.title == "ab"
    assert list(board.table["method"]) == ["x", "z", "y"]
    assert column(board, "rank") == {"x": "1", "z": "2", "y": ""}
    assert pd.isna(column(board, "B")["y"])
    assert pd.isna(column(board, "STS avg")["y"])
    assert "y lacks B" in caption(board)


def test_scores_that_print_alike_tie():
    board = only_board(scored({"y": {"A": 0.50000001, "B": 0.50000002}, "x": {"A": 0.5, "B": 0.5}}))
    assert list(board.table["rank"]) == ["1", "1"]
    assert list(board.table["method"]) == ["x", "y"]


def test_a_cell_is_the_mean_over_seeds_and_their_number_is_shown():
    records = [make("hire", t, v, seed=s) for t in "AB" for s, v in ((1, 0.2), (2, 0.4), (3, 0.9))]
    board = only_board([*records, *scored({"mean": {"A": 0.1, "B": 0.1}})])
    assert column(board, "A") == pytest.approx({"hire": 50.0, "mean": 10.0})
    assert column(board, "seeds") == {"hire": "3", "mean": ""}
    # 2 s for the pass and 0.25 s for the fusion in each cell: the mean over seeds, summed over two tasks.
    assert column(board, "encode s") == {"hire": "4.50", "mean": "4.50"}
    assert "Seeds: 1, 2, 3" in caption(board)


def test_a_spread_is_the_sample_standard_deviation_over_seeds():
    records = [make("hire", t, v, seed=s) for t in "AB" for s, v in ((1, 0.2), (2, 0.4), (3, 0.9))]
    board = only_board([*records, *scored({"mean": {"A": 0.1, "B": 0.1}})])
    # Mean 50, distances -30, -10 and 40, squares 900 + 100 + 1600, over n - 1 = 2.
    wanted = math.sqrt((900 + 100 + 1600) / 2)
    assert list(board.scores.spreads["A"]) == pytest.approx([wanted, math.nan], nan_ok=True)
    assert list(board.scores.printed()["A"]) == ["50.00 ± 36.06", "10.00"]
    assert "no confidence interval over test items" in caption(board)


def test_an_average_is_taken_in_each_seed_before_its_spread_over_seeds():
    by_seed = {1: {"A": 0.1, "B": 0.5}, 2: {"A": 0.5, "B": 0.3}, 3: {"A": 0.6, "B": 0.1}}
    board = only_board([make("hire", t, v, seed=s) for s, row in by_seed.items() for t, v in row.items()])
    means = [30.0, 40.0, 35.0]
    assert column(board, "STS avg") == pytest.approx({"hire": fmean(means)})
    assert list(board.scores.spreads["STS avg"]) == pytest.approx([stdev(means)])


def test_averages_leave_out_seeds_that_lack_a_task():
    records = [make("hire", "A", 0.2, seed=1), make("hire", "B", 0.4, seed=1), make("hire", "A", 0.9, seed=2)]
    board = only_board(records)
    assert column(board, "A") == pytest.approx({"hire": 55.0})
    assert column(board, "STS avg") == pytest.approx({"hire": 30.0})
    assert board.scores.printed()["STS avg"].item() == "30.00"
    apart = only_board([make("hire", "A", 0.2, seed=1), make("hire", "B", 0.4, seed=2)])
    assert apart.scores.printed()["STS avg"].item() == ""


def test_one_seed_has_no_spread_and_the_caption_says_what_that_means():
    board = only_board([make("hire", t, 0.5, seed=1) for t in "AB"])
    assert not board.scores.spread
    assert "Seeds: 1; with one seed a row, how much scores vary over seeds is not known." in board.caption


def test_unequal_numbers_of_seeds_are_shown_as_a_range():
    records = [make("hire", "A", 0.2, seed=1), make("hire", "A", 0.2, seed=2), make("hire", "B", 0.2, seed=1)]
    assert column(only_board(records), "seeds") == {"hire": "1-2"}


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 64},
        {"dtype": "bfloat16"},
        {"limit": 5},
        {"prompts": {"query": "query: "}},
        {"backbone": {"name": "org/other"}},
        {"backbone": {"revision": "fedcba"}},
        {"backbone": {"weights_sha256": "v"}},
        {"data": "other data"},
    ],
)
def test_what_differs_in_setting_or_data_never_shares_a_board(tmp_path, change):
    suite = AskedSuite("a", "a", ("A",))
    records = [make("x", value=0.1), make("y", value=0.2, **change)]
    boards = build_boards(records, [suite])
    assert sorted(list(board.table["method"]) for board in boards) == [["x"], ["y"]]
    files = [path for path in write_boards(boards, tmp_path) if path.name != "README.md"]
    assert len({str(path).lower() for path in files}) == 6


def test_older_data_of_one_task_gets_a_board_of_its_own():
    old = [make("x", "A", 0.9, data="old", created="2025-01-01T00:00:00Z")]
    new = [make("x", "A", 0.1), make("x", "B", 0.3), make("y", "A", 0.2), make("y", "B", 0.2)]
    boards = build_boards(old + new, [AB])
    cells = sorted(column(board, "A")["x"] for board in boards)
    assert cells == pytest.approx([10.0, 90.0])
    assert sorted(pd.notna(column(board, "A").get("y", float("nan"))) for board in boards) == [False, True]


def test_file_names_say_only_what_tells_boards_apart():
    a = AskedSuite("a", "a", ("A",))
    nli = {"regime": "frozen", "train": training_spec()}
    longer = {"regime": "frozen", "train": training_spec(epochs=None, steps=100, batch_size=32)}
    cases = {
        ("a",): [{}],
        ("a", "a-first5"): [{}, {"limit": 5}],
        ("a-len128", "a-len64"): [{}, {"max_length": 64}],
        ("a-finetune", "a-frozen"): [nli, nli | {"regime": "finetune"}],
        ("a-epochs3-b64", "a-steps100-b32"): [nli, longer],
        ("a-train-nli", "a-train-nli+stsb-train-trials3"): [
            nli,
            {"regime": "frozen", "train": training_spec(data=("nli", "stsb-train"), trials=3)},
        ],
        ("a-len128-training-free", "a-len64-frozen-train-nli-epochs3-b64-lr2e-05-0.001"): [
            {},
            {"max_length": 64, **nli},
        ],
    }
    for wanted, changes in cases.items():
        boards = build_boards([make(**change) for change in changes], [a])
        assert tuple(sorted(file_names(boards))) == wanted


def test_a_suite_named_like_a_file_of_another_gets_its_own_file():
    suites = [AskedSuite("a", "a", ("A",)), AskedSuite("a-len64", "t", ("A",))]
    boards = build_boards([make(), make(max_length=64)], suites)
    assert len({*file_names(boards)}) == 4


def test_the_newest_of_two_records_of_a_cell_counts():
    suite = AskedSuite("a", "a", ("A",))
    newer = make(value=0.9, code="b", created="2026-01-01T01:00:00+00:00")
    older = make(value=0.1, code="a", created="2026-01-01T02:30:00+02:00")  # 00:30 in UTC
    for records in ([newer, older], [older, newer]):
        board = only_board(records, suite)
        assert column(board, "A") == pytest.approx({"mean": 90.0})
        assert "versions of the code" not in caption(board)


def test_times_without_a_zone_are_utc():
    suite = AskedSuite("a", "a", ("A",))
    records = [make(value=0.9, code="b", created="2026-01-01T01:00:00"), make(value=0.1, code="a")]
    assert column(only_board(records, suite), "A") == pytest.approx({"mean": 90.0})


def test_rows_of_different_code_are_pointed_out():
    assert "2 versions of the code" in caption(only_board([make("x", git_commit="a"), make("y", git_commit="b")]))


def test_a_method_equal_to_another_is_listed_beside_it_and_not_ranked():
    records = scored({"mean": {"A": 0.5, "B": 0.5}, "top": {"A": 0.6, "B": 0.6}, "low": {"A": 0.4, "B": 0.4}})
    records += [make("mean-sqrt", task, 0.5, equal_to="mean") for task in "AB"]
    board = only_board(records)
    assert column(board, "rank") == {"top": "1", "mean": "2", "mean-sqrt": "= mean (cosine)", "low": "3"}
    assert list(board.table["method"]) == ["top", "mean", "mean-sqrt", "low"]
    assert "'= x (cosine)'" in caption(board)


def test_a_method_whose_equal_is_not_on_the_board_is_ranked():
    records = [make(m, task, 0.5, equal_to=e) for task in "AB" for m, e in (("mean-sqrt", "mean"), ("x", None))]
    assert column(only_board(records), "rank") == {"mean-sqrt": "1", "x": "1"}


def test_fits_are_different_rows_and_named_only_when_there_are_several():
    wiki, news = (TextSetSpec(name=name, sha256=name * 4, count=9) for name in ("wiki", "news"))
    whitened = [make("mean+whiten", task, 0.5, fit=wiki) for task in "AB"]
    plain = scored({"mean": {"A": 0.4, "B": 0.4}})
    assert list(only_board(plain + whitened).table["method"]) == ["mean+whiten", "mean"]
    board = only_board(plain + whitened + [make("mean+whiten", task, 0.6, fit=news) for task in "AB"])
    assert list(board.table["method"]) == ["mean+whiten [fit: news]", "mean+whiten [fit: wiki]", "mean"]
    assert "fit: news (9 texts, newsnews), wiki (9 texts, wikiwiki)" in caption(board)


def test_a_limited_run_is_called_a_smoke_run_in_title_and_caption():
    board = only_board([make(limit=5)])
    assert board.title == "ab (1 of 2) - SMOKE RUN: first 5 samples, scores mean nothing"
    assert "SMOKE RUN: first 5 samples, scores mean nothing." in board.caption


def test_the_caption_says_what_the_numbers_are():
    text = caption(only_board(scored({"x": {"A": 0.5, "B": 0.5}}), MIXED))
    for words in [
        "org/net, revision 01234567",
        "1 method.",
        "max length 128 (model config), float32, training-free; train: none; fit: none.",
        "STS: cosine_spearman",
        "STS protocol: STS: as mteb",
        "1 of 3 tasks missing: R",
        "Differences are not tested for significance",
        "mteb 2.26.24",
        "the texts of 2 tasks; 4.00 s of it",
    ]:
        assert words in text


def test_no_records_or_no_suites_give_no_boards(tmp_path):
    assert build_boards([], [AB]) == []
    assert build_boards([make()], []) == []
    assert build_boards([make()], [AskedSuite("c", "c", ("C",))]) == []
    assert write_boards([], tmp_path) == [tmp_path / "README.md"]
    assert "no boards yet" in (tmp_path / "README.md").read_text()


def test_the_same_records_in_any_order_give_the_same_bytes(tmp_path):
    records = [
        make(method, task, 0.1 * len(method) + 0.01 * number, seed=seed, max_length=length)
        for method in ("a", "bb", "ccc")
        for number, task in enumerate("AB")
        for seed in (None, 1, 2)
        for length in (64, 128)
    ]
    suites, outputs = [AB, MIXED], set()
    for seed in range(4):
        draw = random.Random(seed)
        draw.shuffle(records)
        draw.shuffle(suites)
        out = tmp_path / str(seed) / "out"
        paths = write_boards(build_boards(records, suites), out)
        outputs.add(tuple((str(path.relative_to(out)), path.read_bytes()) for path in paths))
    assert len(outputs) == 1


def test_markdown_keeps_trailing_zeros_and_escapes_markup(tmp_path):
    records = scored({"a|b*": {"A": 0.801, "B": 0.5}, "<c>_d": {"A": 0.8, "B": 0.5}})
    write_boards(build_boards(records, [AB]), tmp_path)
    (text,) = (path.read_text() for path in tmp_path.glob("leaderboards/*/ab.md"))
    lines = text.splitlines()
    assert lines[0] == "# ab: org/net"
    assert [cell.strip() for cell in lines[4].split(" | ")][1:4] == ["a\\|b\\*", "80.10", "50.00"]
    assert [cell.strip() for cell in lines[5].split(" | ")][1:4] == ["&lt;c>_d", "80.00", "50.00"]


def test_names_make_no_link_no_picture_and_no_tag_on_a_page(tmp_path):
    """A picture's address would tell its owner who reads the board."""
    evil = "![x](http://e.org/p.png)[y](javascript:z)<img src=q onerror=r>"
    records = [make(evil, "A", 0.5, backbone={"name": f"org/{evil}"}), make("mean", "A", 0.4)]
    write_boards(build_boards(records, [AskedSuite(evil, evil, ("A",))]), tmp_path)
    for path in [tmp_path / "README.md", *tmp_path.glob("leaderboards/*/*.md")]:
        text = path.read_text().replace("[CSV](", "").replace("[LaTeX](", "")
        text = re.sub(r"Whole board: \[[\w.+=-]+\]\(leaderboards", "", text)
        assert not re.search(r"(?<!\\)\[|(?<!\\)\]\(|<(?!!--)", text), text


def test_csv_holds_the_printed_numbers_and_no_formula(tmp_path):
    write_boards(build_boards(scored({"=x": {"A": 0.801, "B": -0.5}}), [AB]), tmp_path)
    (text,) = (path.read_text() for path in tmp_path.glob("leaderboards/*/ab.csv"))
    assert text == "rank,method,A,B,STS avg,dims,params added,encode s\n1,'=x,80.10,-50.00,15.05,384,0,4.50\n"


def test_spreads_are_columns_in_csv_and_plus_minus_in_markdown_and_latex(tmp_path):
    records = [make("hire", "A", v, seed=s) for s, v in ((1, 0.5), (2, 0.7))] + [make("mean", "A", 0.1)]
    write_boards(build_boards(records, [AskedSuite("a", "a", ("A",))]), tmp_path)
    (place,) = tmp_path.glob("leaderboards/*")
    assert (place / "a.csv").read_text() == (
        "rank,method,seeds,A,A sd,STS avg,STS avg sd,dims,params added,encode s\n"
        "1,hire,2,60.00,14.14,60.00,14.14,384,0,2.25\n"
        "2,mean,,10.00,,10.00,,384,0,2.25\n"
    )
    assert "| 60.00 ± 14.14 |" in (place / "a.md").read_text()
    latex = (place / "a.tex").read_text()
    assert r"60.00 $\pm$ 14.14" in latex
    assert "±" not in latex


def test_latex_is_booktabs_with_specials_escaped(tmp_path):
    records = [make("a_b&c%", backbone={"name": "my_net#1"})]
    write_boards(build_boards(records, [AskedSuite("a", "50% of {a}", ("A",))]), tmp_path)
    (text,) = (path.read_text() for path in tmp_path.glob("leaderboards/*/a.tex"))
    assert r"a\_b\&c\%" in text
    assert r"50\% of \{a\}: my\_net\#1." in text
    assert r"\toprule" in text
    assert r"\bottomrule" in text


def test_files_of_boards_that_are_gone_are_removed_and_nothing_else(tmp_path):
    write_boards(build_boards([make()], [AB]), tmp_path)
    stale = tmp_path / "leaderboards" / "gone" / "old.tex"
    stale.parent.mkdir()
    kept = [stale.with_name("notes.txt"), tmp_path / "notes.md"]
    for path in (stale, *kept):
        path.write_text("x")
    written = write_boards(build_boards([make()], [MIXED]), tmp_path)
    assert sorted(tmp_path.glob("leaderboards/**/*.*")) == sorted([*written[:-1], kept[0]])
    assert kept[1].exists()


def test_the_overview_lists_boards_with_links_and_their_first_rows(tmp_path):
    out = tmp_path / "my results"
    write_boards(build_boards(scored({f"m{i}": {"A": i / 10, "B": i / 10} for i in range(7)}), [AB]), out)
    text = (out / "README.md").read_text()
    assert "python run_bench.py report --out 'my results'" in text
    assert str(tmp_path) not in text
    assert "The first 5 of 7 rows." in text
    shown = [f"m{i}" in text for i in range(7)]
    assert shown == [False, False, True, True, True, True, True]
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(links) == 3
    assert all((out / link).is_file() for link in links)


def test_a_readme_that_no_report_wrote_is_never_overwritten(tmp_path):
    (tmp_path / "README.md").write_text("# My project")
    with pytest.raises(InputError, match="not written by a report"):
        write_boards([], tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My project"


def test_a_long_name_is_never_cut_on_a_narrow_terminal():
    name = "a-very-long-method-name+" + "x" * 30
    board = only_board(scored({name: {"A": 0.5, "B": 0.5}, "[red]ÿ日": {"A": 0.4, "B": 0.4}}))
    seen = {}
    for width in (20, 70, 80, 200):
        stream = io.StringIO()
        print_board(board, Console(file=stream, width=width))
        lines = stream.getvalue().splitlines()
        assert any(name in line for line in lines)
        assert any("[red]ÿ日" in line for line in lines)
        seen[width] = next(line for line in lines if "method" in line and "rank" in line).split()
    assert seen[20] == ["rank", "method"]
    assert "STS" in seen[70]
    assert seen[200][-2:] == ["encode", "s"]
    assert all(set(less) <= set(more) for less, more in pairwise(seen.values()))


def test_a_narrow_terminal_loses_the_spreads_of_tasks_before_a_task(capsys):
    records = [make("hire", t, v, seed=s) for t in "AB" for s, v in ((1, 0.5), (2, 0.7))]
    board = only_board(records + scored({"mean": {"A": 0.1, "B": 0.1}}))
    seen = {}
    for width in (42, 60, 120):
        print_board(board, Console(width=width))
        seen[width] = capsys.readouterr().out.splitlines()
    assert seen[120][1].split()[:7] == ["rank", "method", "seeds", "A", "B", "STS", "avg"]
    assert seen[120][2].count("60.00 ± 14.14") == 3
    assert seen[60][2].split() == ["1", "hire", *["60.00", "±", "14.14"] * 3]
    assert seen[60][3].split() == ["2", "mean", *["10.00"] * 3]
    # Means stand below means, whether they have a spread or not.
    assert seen[60][2].index("60.00") == seen[60][3].index("10.00")
    assert seen[42][2].split() == ["1", "hire", *["60.00"] * 3, "±", "14.14"]
    assert seen[42][4].endswith("seeds, ± of single tasks.")


def test_output_that_is_no_terminal_has_no_escape_codes():
    stream = io.StringIO()
    print_board(only_board(scored({"x": {"A": 0.5, "B": 0.5}})), Console(file=stream, width=100))
    assert "\x1b" not in stream.getvalue()
