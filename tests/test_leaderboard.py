"""A board is arithmetic on records that may be compared, and says what a reader must know."""

import io
import random
from itertools import pairwise, permutations

import pandas as pd
import pytest
from rich.console import Console

from fusebench.benchmarks.board_files import file_names, print_board, write_boards
from fusebench.benchmarks.leaderboard import borda_points, build_boards, competition_ranks
from fusebench.benchmarks.record import (
    BackboneSpec,
    Cost,
    Counts,
    Environment,
    MethodSpec,
    Prompts,
    Record,
    Score,
    Spec,
    TaskSpec,
    TextSetSpec,
)
from fusebench.benchmarks.store import AskedSuite
from fusebench.errors import InputError

AB = AskedSuite("ab", "ab", ("A", "B"))
MIXED = AskedSuite("mixed", "Mixed", ("A", "B", "R"))


def make(method="mean", task="A", value=0.5, **changes):
    """A record of made-up numbers; `changes` are fields of Spec, TaskSpec, Cost, Environment or Record."""
    net = {"name": "org/net", "revision": "0123456789abcdef", "weights_sha256": "w", "tokenizer_sha256": "t"}
    net |= {"architecture": "BertModel", "blocks": 6, "dim": 384, "final_norm": "none", "remote_code": False}
    net |= changes.pop("backbone", {})
    kind = changes.pop("type", "STS")
    metric = {"STS": "cosine_spearman", "Retrieval": "ndcg_at_10"}[kind]
    judged = {"name": task, "type": kind, "source": "embedded", "revision": "1", "metric": metric}
    judged |= {"data_sha256": changes.pop("data", f"data of {task}")}
    judged |= {"splits": ("test",), "subsets": ("default",)}
    spec = Spec(
        backbone=BackboneSpec(**net),
        method=MethodSpec(name=method, parts=()),
        task=TaskSpec(**judged, protocol=f"{kind}: as mteb"),
        seed=changes.pop("seed", None),
        regime=changes.pop("regime", "training-free"),
        train=changes.pop("train", None),
        fit=changes.pop("fit", None),
        prompts=Prompts(**changes.pop("prompts", {})),
        max_length=changes.pop("max_length", 128),
        max_length_source="model config",
        dtype=changes.pop("dtype", "float32"),
        device="cpu",
        padding_side="right",
        batch_tokens=4096,
        limit=changes.pop("limit", None),
        software={"mteb": "2.26.24"},
        code=changes.pop("code", "c0de"),
    )
    score = {"subset": "default", "split": "test", "metric": metric, "value": value, "is_main": True}
    cost = {"pass_seconds": 2.0, "fusion_seconds": 0.25, "scoring_seconds": 0.1, "peak_memory_mb": 1.0}
    stamp = {"created": "2026-01-01T00:00:00+00:00", "platform": "Linux", "python": "3.11"}
    stamp |= {"processor": "x86", "git_commit": None, "git_dirty": None, "versions": {}}
    return Record.of(
        spec,
        scores=changes.pop("scores", (Score(**score),)),
        main_score=value,
        out_dim=changes.pop("out_dim", 384),
        added_parameters=0,
        equal_to=changes.pop("equal_to", None),
        counts=Counts(texts=10, distinct_texts=9, truncated_texts=0, empty_texts=0),
        cost=Cost(**cost, effective_batch_tokens=4096, threads=2),
        environment=Environment(**(stamp | changes)),
    )


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


def test_unequal_numbers_of_seeds_are_shown_as_a_range():
    records = [make("hire", "A", 0.2, seed=1), make("hire", "A", 0.2, seed=2), make("hire", "B", 0.2, seed=1)]
    assert column(only_board(records), "seeds") == {"hire": "1-2"}


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 64},
        {"dtype": "bfloat16"},
        {"regime": "frozen"},
        {"train": TextSetSpec(name="nli", sha256="s", count=3)},
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
    nli = TextSetSpec(name="nli", sha256="s", count=3)
    cases = {
        ("a",): [{}],
        ("a", "a-first5"): [{}, {"limit": 5}],
        ("a-len128", "a-len64"): [{}, {"max_length": 64}],
        ("a-len128-training-free", "a-len64-frozen-train-nli"): [
            {},
            {"max_length": 64, "regime": "frozen", "train": nli},
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
        "differences are not tested for significance",
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


def test_csv_holds_the_printed_numbers_and_no_formula(tmp_path):
    write_boards(build_boards(scored({"=x": {"A": 0.801, "B": -0.5}}), [AB]), tmp_path)
    (text,) = (path.read_text() for path in tmp_path.glob("leaderboards/*/ab.csv"))
    assert text == "rank,method,A,B,STS avg,dims,params added,encode s\n1,'=x,80.10,-50.00,15.05,384,0,4.50\n"


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


def test_output_that_is_no_terminal_has_no_escape_codes():
    stream = io.StringIO()
    print_board(only_board(scored({"x": {"A": 0.5, "B": 0.5}})), Console(file=stream, width=100))
    assert "\x1b" not in stream.getvalue()
