"""A protocol is what its card says, changed by what the user says, and never another one under its name."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import spearmanr

from fusebench.benchmarks.sample_files import read_samples
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods.grammar import parse
from fusebench.methods.states import StateShape
from fusebench.run_bench import main
from fusebench.study.catalogue import expand
from fusebench.study.flags import given_flags, run_parser
from fusebench.study.protocol_choice import with_protocol
from fusebench.study.protocol_table import protocol_table
from fusebench.study.protocols import PROTOCOLS, protocol
from tests.conftest import TinyData
from tests.test_run import PAIRS
from tests.tiny_models import save


def settled(*arguments):
    return with_protocol(run_parser().parse_args(arguments), given_flags(list(arguments)))


@pytest.mark.parametrize("card", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_cards_methods_are_spelt_as_boards_name_them(card):
    shape = StateShape(blocks=12, dim=768)
    for sentence in card.methods:
        resolved = parse(expand(sentence, None)).on(shape)
        assert sentence.endswith("@each") or [method.name for method in resolved] == [sentence]
    assert {row.method for row in card.published} <= set(card.methods)


@pytest.mark.parametrize("card", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_cards_settings_are_flags_and_its_published_columns_are_in_its_table(card):
    assert set(card.settings) <= set(vars(run_parser().parse_args([])))
    for row in card.published:
        assert set(row.scores) <= {*card.tasks, "average"}
        assert set(card.tasks) <= set(row.scores)


def test_a_published_average_is_the_mean_of_its_row():
    averages = [row.scores for card in PROTOCOLS.values() for row in card.published if "average" in row.scores]
    assert averages
    for scores in averages:
        tasks = [value for name, value in scores.items() if name != "average"]
        assert scores["average"] == pytest.approx(np.mean(tasks), abs=0.0051)


def test_a_misspelt_protocol_suggests_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'simcse-2022'"):
        protocol("simcse-22")


def test_the_card_speaks_where_the_user_is_silent():
    flags = settled("--protocol", "layerattpooler", "--seeds", "0,1")
    card = protocol("layerattpooler")
    assert flags.methods == [list(card.methods)]
    assert flags.tasks == [list(card.tasks)]
    assert (flags.regime, flags.epochs, flags.batch_size, flags.seeds) == ("finetune", 3, 256, (0, 1))
    assert flags.protocol.changes == ()


def test_what_the_user_changes_is_kept_and_told():
    flags = settled("--protocol", "layerattpooler", "--steps", "100", "--batch-size", "64", "--methods", "mean,cls")
    assert (flags.epochs, flags.steps, flags.batch_size, flags.methods) == (None, 100, 64, [["mean,cls"]])
    assert flags.protocol.changes == ("--steps 100 instead of 3 epochs", "--batch-size 64 instead of 256")
    assert settled("--protocol", "ilse", "--batch-size", "64", "--dtype", "float32").protocol.changes == ()
    assert settled("--protocol", "ilse", "--dtype", "bfloat16").protocol.changes == ("--dtype bfloat16",)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("simcse-2022", "--tasks", "STS12"), "names its tasks"),
        (("simcse-2022", "--suite", "mteb-sts"), "names its tasks"),
        (("simcse-2022", "--limit", "9"), "fewer pairs"),
        (("bert-whitening",), "--fit"),
    ],
)
def test_flags_that_would_make_another_protocol_are_refused(arguments, reason):
    with pytest.raises(InputError, match=reason):
        settled("--protocol", *arguments)


def test_published_scores_stand_beside_the_same_weights_alone():
    card = protocol("simcse-2022")
    own = {"first-last": {task: [50.0, 51.0] for task in card.tasks}}
    table = protocol_table(card, "google-bert/bert-base-uncased", own, {})
    assert table["whose"].tolist() == ["ours, mean of 2 seeds", "published", "difference"]
    assert table["STS12"].tolist() == ["50.50", "45.09", "+5.41"]
    assert table["average"].tolist() == ["50.50", "60.73", "-10.23"]
    assert protocol_table(card, "tiny/net", own, {})["whose"].tolist() == ["ours, mean of 2 seeds"]


def test_fewer_tasks_have_no_average():
    card = protocol("simcse-2022")
    own = {"mean": {task: [50.0] for task in card.tasks[:-1]}}
    table = protocol_table(card, "tiny/net", own, {card.tasks[-1]: "not there"})
    assert table.iloc[0][card.tasks[-1]] == table.iloc[0]["average"] == "-"


SUBSETS = ["MSRpar"] * 4 + ["MSRvid"] * 6


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a protocol over the two tasks that a tiny data folder has."""
    root = tmp_path_factory.mktemp("protocol")
    save("bert", root / "tiny-bert")
    tiny = TinyData(root / "data")
    tiny.write_sts("STS12", [{**pair, "subset": name} for pair, name in zip(PAIRS, SUBSETS, strict=True)])
    tiny.write_sts("STSBenchmark", PAIRS)
    out = root / "out"
    arguments = ["--protocol", "layerattpooler", "--methods", "mean", "--backbone", str(root / "tiny-bert")]
    where = ["--data-dir", str(root / "data"), "--out", str(out), "--device", "cpu", "--no-test"]
    assert main([*arguments, *where]) == 2  # five of seven tasks are not there
    assert not out.exists()
    assert main([*arguments, *where, "--available-only"]) == 0
    (path,) = out.glob("protocols/*/layerattpooler.md")
    return Store(out), path.read_text()


def test_a_year_is_the_weighted_mean_of_its_sub_corpora(finished):
    store, text = finished
    (record,) = (record for record in store.records() if record.spec.task.name == "STS12")
    (part,) = read_samples(store.out, record).parts
    gold = [pair["score"] for pair in PAIRS]
    expected = 0.4 * spearmanr(gold[:4], part.values[:4])[0] + 0.6 * spearmanr(gold[4:], part.values[4:])[0]
    row = re.search(r"^\| mean .*$", text, re.MULTILINE)[0].split("|")
    assert row[3].strip() == f"{100 * expected:.2f}"
    assert abs(expected - record.main_score) > 0.01  # mteb's number is another


def test_the_page_tells_what_is_missing_and_what_is_not_confirmed(finished):
    _, text = finished
    assert "Incomplete: 2 of 7 tasks are scored, so there is no average." in text
    assert "- STS13: the data folder lacks it." in text
    assert "- In this run: at most " in text
    assert f"- Methods of the study, in the words used here: `{protocol('layerattpooler').methods[0]}`." in text
    assert all(note in text.replace("\\", "") for note in protocol("layerattpooler").unconfirmed)


def test_a_task_whose_parts_the_data_do_not_name_is_refused(tmp_path, capsys):
    save("bert", tmp_path / "tiny-bert")
    tiny = TinyData(tmp_path / "data")
    for name in ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R"):
        tiny.write_sts(name, PAIRS)
    arguments = ["--protocol", "layerattpooler", "--methods", "mean", "--backbone", str(tmp_path / "tiny-bert")]
    where = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--device", "cpu", "--no-test"]
    assert main([*arguments, *where]) == 2
    assert "STS12: its test file names no sub-corpus" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
