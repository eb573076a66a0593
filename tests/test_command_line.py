from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusebench.benchmarks.sample_files import read_samples
from fusebench.benchmarks.store import Store
from fusebench.methods import registry
from fusebench.run_bench import INSTALL, main
from fusebench.study.catalogue import catalogue_names
from tests.conftest import TinyData
from tests.tiny_models import folder_of

SCRIPT = Path(__file__).resolve().parents[1] / "run_bench.py"
MODEL = str(folder_of("bert"))
PAIRS = [{"sentence1": f"the cat w{i}", "sentence2": f"a dog w{i * i % 7}", "score": i / 2} for i in range(8)]

PLUGIN = """
import os, pathlib, time
import torch
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import register
from fusebench.methods.states import Needs


class Head(Fusion):
    needs = Needs.MEANS

    def __init__(self, shape):
        super().__init__()
        self.layers, self.out_dim = (shape.blocks,), shape.dim


@register("gone-wrong", paper="none")
class GoneWrong(Head):
    def forward(self, states):
        return states.mean(self.layers[0]) * float("nan")


@register("patient", paper="none")
class Patient(Head):
    def forward(self, states):
        if marker := os.environ.get("TEST_WAIT"):
            pathlib.Path(marker).touch()
            time.sleep(60)
        return states.mean(self.layers[0]) * 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with a space in its name."""
    tiny = TinyData(tmp_path_factory.mktemp("some data") / "my tasks")
    tiny.write_sts("TinySTS", PAIRS)
    tiny.write_sts("BIOSSES", PAIRS)
    return tiny.root


@pytest.fixture
def bench(tmp_path, data, monkeypatch, capsys):
    """One command line in a folder of its own: exit code, output, messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    (tmp_path / "plugin.py").write_text(PLUGIN)

    def bench(*arguments, run=True):
        more = ["--backbone", MODEL] if run and "--backbone" not in arguments else []
        if run and not {"--tasks", "--suite"} & set(arguments):
            more += ["--tasks", "TinySTS", "--data-dir", str(data)]
        try:
            code = main([*map(str, arguments), *more])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return bench


def cells(output):
    """Method names of a dry run."""
    return [line.split("  ")[2] for line in output.splitlines()]


def one_sentence(messages):
    """Whether all that was said is one line that begins with `error:`."""
    return messages.startswith("error: ") and messages.count("\n") == 1 and "Traceback" not in messages


# ---- which methods


def test_methods_without_a_value_is_the_catalogue(bench):
    code, out, _ = bench("--methods", "--dry-run")
    assert code == 0
    assert {"mean", "cls", "sbert-wk", "mean+whiten", "mean(layer=0)"} <= set(cells(out))
    assert bench("--methods", "all", "--dry-run")[1] == out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--methods", "mean,cls,mean(layer=1)+whiten(k=4)"),
        ("--methods", "mean", "cls", "mean(layer=1)+whiten(k=4)"),
        ("--methods", "mean", "--methods", "cls,mean(layer=1)+whiten(k=4)"),
        ("--methods", " mean , cls ", "mean( layer = 1 ) + whiten( k=4 )"),
    ],
)
def test_methods_are_given_by_commas_by_spaces_or_by_repeating_the_flag(bench, arguments):
    code, out, _ = bench(*arguments, "--dry-run")
    assert (code, cells(out)) == (0, ["mean", "cls", "mean(layer=1)+whiten(k=4)"])


def test_a_comma_inside_parentheses_separates_parameters(bench):
    _, out, _ = bench("--methods", "last-k-mean(k=2),mean+whiten(k=3,eps=0.1)", "--dry-run")
    assert cells(out) == ["last-k-mean(k=2)", "mean+whiten(k=3,eps=0.1)"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--methods", "all,mean(layer=1)+whiten(k=4)"),
        ("--methods", "--methods", "mean(layer=1)+whiten(k=4)"),
    ],
)
def test_the_catalogue_and_a_method_beside_it_are_both_run(bench, arguments):
    _, catalogue, _ = bench("--methods", "--dry-run")
    code, out, _ = bench(*arguments, "--dry-run")
    assert (code, cells(out)) == (0, [*cells(catalogue), "mean(layer=1)+whiten(k=4)"])


# ---- what a run leaves behind


def test_a_run_prints_its_board_and_fills_the_results_folder(bench, tmp_path):
    code, out, err = bench("--methods", "mean,cls", "--out", "res")
    assert code == 0
    assert out.startswith("TinySTS: bert")
    assert [line.split()[1] for line in out.splitlines()[2:4]] in (["mean", "cls"], ["cls", "mean"])
    assert "2 cells scored" in err
    assert {path.name for path in (tmp_path / "res").iterdir()} == {
        "runs", "mteb", "samples", "suites", "leaderboards", "locks", "logs",
        "scores.csv", "scores.parquet", "README.md",
    }  # fmt: skip
    header = (tmp_path / "res" / "scores.csv").read_text().splitlines()[0]
    assert header.startswith("spec_id,backbone,backbone_revision,method,task,subset,split,metric,is_main,seed,score,")


def test_the_board_of_a_run_is_that_of_its_own_setting(bench):
    bench("--methods", "mean", "--limit", "5")
    code, out, _ = bench("--methods", "mean", "--max-length", "9")
    assert code == 0
    assert out.count("Backbone: ") == 1
    assert "max length 9 (--max-length)" in out
    assert "SMOKE RUN" not in out


def test_a_second_run_keeps_what_the_first_one_did_even_from_another_folder(bench, data, tmp_path, monkeypatch):
    bench("--methods", "mean", "--out", "res")
    monkeypatch.chdir(data)
    arguments = ("--methods", "mean", "--tasks", "TinySTS", "--data-dir", ".", "--out", tmp_path / "res")
    code, _, err = bench(*arguments)
    assert code == 0
    assert "0 cells scored (0.0 s in mteb), 1 kept, 0 failed" in err


def test_a_dry_run_shows_the_cells_and_writes_nothing(bench, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = bench("--methods", "mean,cls", "--dry-run")
    assert (code, cells(out)) == (0, ["mean", "cls"])
    assert "2 methods x 1 tasks = 2 cells, 0 of them finished before" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_smoke_run_says_so_on_screen(bench):
    code, out, err = bench("--methods", "mean", "--limit", "5")
    assert code == 0
    assert "SMOKE RUN" in out.splitlines()[0]
    assert "SMOKE RUN" in err


def test_failed_cells_are_named_and_the_exit_code_is_1(bench, tmp_path):
    code, out, err = bench("--methods", "gone-wrong,mean", "--plugin", "plugin.py", "--out", "res")
    assert code == 1
    assert "FAILED gone-wrong on TinySTS: " in err
    assert "Traceback" not in err
    assert " mean " in out
    assert [record.spec.method.name for record in Store(tmp_path / "res").records()] == ["mean"]


def test_a_suite_with_missing_tasks_is_called_what_it_is(bench, data):
    arguments = ("--methods", "mean", "--suite", "mteb-sts", "--data-dir", data, "--out", "res")
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert "STS12, STS13, STS14, STS15, STS16, STSBenchmark, SICK-R; add a folder" in err
    code, out, _ = bench(*arguments, "--available-only")
    assert code == 0
    assert out.startswith("mteb-sts (1 of 8): bert")
    for file in ("res/README.md", "res/leaderboards/bert/mteb-sts.md"):
        assert "mteb-sts (1 of 8)" in Path(file).read_text()


def test_damaged_files_go_to_quarantine_by_name_and_the_same_command_makes_them_anew(bench, tmp_path):
    asked = ("--methods", "mean,scalar-mix+batch-softmax", "--steps", "2", "--out", "res")
    assert bench(*asked)[0] == 0
    out = tmp_path / "res"
    whole = {record.spec.method.name: record.scores for record in Store(out).records()}

    def flip(content):
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]

    rounds = [
        (flip, ["samples/*/*/mean-*", "mteb/*/scalar-mix*/*", "suites/*", "trained/*/weights.safetensors"]),
        (lambda content: content[:-9], ["runs/*/*/mean-*", "samples/*/*/scalar-mix*", "trained/*/method.json"]),
    ]
    for damage, kinds in rounds:
        for kind in kinds:
            file = next(out.glob(kind))
            file.write_bytes(damage(file.read_bytes()))
        code, _, err = bench(*asked)
        assert (code, "0 kept, 0 failed" in err) == (0, True), err
        for kind in kinds:
            (moved,) = (out / "quarantine").glob(kind)
            shown = moved.parent if kind.startswith("trained") else moved
            assert f"to quarantine: {shown.relative_to(out / 'quarantine')} " in err
            assert len(list(out.glob(kind))) == 1
        shutil.rmtree(out / "quarantine")
        again = Store(out).records()
        assert {record.spec.method.name: record.scores for record in again} == whole
        assert all(read_samples(out, record).parts for record in again)
    code, _, err = bench(*asked)
    assert (code, "to quarantine" in err, "2 kept" in err) == (0, False, True)


def test_foreign_files_among_the_records_go_to_quarantine(bench, tmp_path):
    bench("--methods", "mean", "--out", "res")
    (record,) = tmp_path.glob("res/runs/*/*/*.json")
    held = json.loads(record.read_text())
    (record.parent / "a.json").write_text("{")
    (record.parent / "b.json").write_bytes(bytes(range(256)))
    (record.parent / "c.json").write_text("[1, 2]")
    (record.parent / "d.json").write_text(json.dumps({**held, "main_score": "high"}))
    code, _, err = bench("--methods", "mean", "--out", "res")
    assert code == 0
    moved = [line.split(" ")[2].rsplit("/")[-1] for line in err.splitlines() if line.startswith("to quarantine: ")]
    assert moved == ["a.json", "b.json", "c.json", "d.json"]
    assert "1 kept" in err
    assert list(record.parent.iterdir()) == [record]
    assert len(list(tmp_path.glob("res/quarantine/runs/*/*/*.json"))) == 4


def test_a_report_is_made_from_the_records_alone(bench, tmp_path):
    bench("--methods", "mean,cls", "--out", "res")
    scores = (tmp_path / "res" / "scores.csv").read_bytes()
    (tmp_path / "res" / "scores.csv").unlink()
    shutil.rmtree(tmp_path / "res" / "leaderboards")
    code, out, _ = bench("report", "--out", "res", run=False)
    assert code == 0
    assert "TinySTS: bert" in out
    assert (tmp_path / "res" / "scores.csv").read_bytes() == scores
    assert (tmp_path / "res" / "leaderboards" / "bert").is_dir()


# ---- bad input

BAD = {
    "no methods flag": (("--limit", "5"), "nothing to run"),
    "empty method": (("--methods", ""), "a method is empty"),
    "only a comma": (("--methods", ","), "nothing stands before"),
    "two commas": (("--methods", "mean,,cls"), "nothing stands before"),
    "unknown method": (("--methods", "meen"), "Did you mean 'mean'"),
    "unknown catalogue name": (("--methods", "second-to-lst"), "Did you mean 'second-to-last'"),
    "unicode method": (("--methods", "平均"), "no method '平均'"),
    "unknown parameter": (("--methods", "mean(layr=1)"), "Did you mean 'layer'"),
    "no such layer": (("--methods", "mean(layer=77)"), "layer 77 does not exist"),
    "open parenthesis": (("--methods", "mean(layer=1"), "parenthesis"),
    "two fusions": (("--methods", "mean+cls"), "more than one fusion"),
    "no fusion": (("--methods", "whiten"), "no fusion"),
    "too few fit texts": (("--methods", "mean+whiten", "--fit", "two.txt"), "more than 32 fit texts and has 2"),
    "unknown task": (("--methods", "mean", "--tasks", "STSBenchmrk"), "Did you mean 'STSBenchmark'"),
    "no task name": (("--methods", "mean", "--tasks", ","), "',' names nothing"),
    "unknown suite": (("--methods", "mean", "--suite", "mteb-stss"), "Did you mean 'mteb-sts'"),
    "no suite name": (("--methods", "mean", "--suite", ""), "'' names nothing"),
    "no data folder": (("--methods", "mean", "--tasks", "X", "--data-dir", "nowhere"), "nowhere is not a folder"),
    "a file as data folder": (("--methods", "mean", "--tasks", "X", "--data-dir", "two.txt"), "is not a folder"),
    "hub out of reach": (("--methods", "mean", "--tasks", "STS12"), "put a copy of the data set below --data-dir"),
    "available of nothing": (("--methods", "mean", "--tasks", "LeeSTS", "--available-only"), "--data-dir"),
    "half a data set": (("--methods", "mean", "--tasks", "Half", "--data-dir", "data"), "queries.jsonl"),
    "wrong columns": (("--methods", "mean", "--tasks", "Columns", "--data-dir", "data"), "rename or add sentence1"),
    "empty text": (("--methods", "mean", "--tasks", "Empty", "--data-dir", "data"), "--allow-empty-texts"),
    "ids twice": (("--methods", "mean", "--tasks", "Twice", "--data-dir", "data"), "'d0' occurs twice"),
    "garbled data": (("--methods", "mean", "--tasks", "Garbled", "--data-dir", "data"), "line 1 is not JSON"),
    "limit 0": (("--methods", "mean", "--limit", "0"), "a limit of 0"),
    "limit below a correlation": (("--methods", "mean", "--limit", "2"), "at least 3"),
    "limit of a word": (("--methods", "mean", "--limit", "few"), "few"),
    "no such folder": (("--methods", "mean", "--backbone", "./nowhere"), "there is no such folder"),
    "no such hub model": (("--methods", "mean", "--backbone", "no-such/model"), "the hub cannot be reached"),
    "no model in the folder": (("--methods", "mean", "--backbone", "data"), "no config.json"),
    "no model in the package": (("--methods", "mean", "--backbone", "json"), "holds no folder with config.json"),
    "no such device": (("--methods", "mean", "--device", "tpu"), "choose auto, cpu, cuda"),
    "no such dtype": (("--methods", "mean", "--dtype", "float8"), "float8"),
    "max length of special tokens": (("--methods", "mean", "--max-length", "2"), "no room for text"),
    "max length beyond the table": (("--methods", "mean", "--max-length", "9999"), "position table"),
    "max length 0": (("--methods", "mean", "--max-length", "0"), "not a whole number above 0"),
    "no batch tokens": (("--methods", "mean", "--batch-tokens", "²"), "not a whole number above 0"),
    "seeds of letters": (("--methods", "mean", "--seeds", "x"), "whole numbers with commas"),
    "negative seed": (("--methods", "mean", "--seeds", "-1"), "seeds are 0 to"),
    "no fit file": (("--methods", "mean+whiten(k=2)", "--fit", "nowhere.txt"), "no such text set"),
    "empty fit": (("--methods", "mean", "--fit", ""), "--fit is empty"),
    "no plugin": (("--methods", "mean", "--plugin", "nowhere.py"), "no such file"),
    "broken plugin": (("--methods", "mean", "--plugin", "broken.py"), "SyntaxError"),
    "plugin with a taken name": (("--methods", "mean", "--plugin", "taken.py"), "already registered"),
    "a file as results folder": (("--methods", "mean", "--out", "two.txt"), "is a file"),
    "a foreign README in the results folder": (("--methods", "mean", "--out", "foreign"), "not written by a report"),
    "below a file": (("--methods", "mean", "--out", "two.txt/res"), "cannot write"),
    "unknown flag": (("--methods", "mean", "--frobnicate"), "--frobnicate"),
    "unknown sub-command": (("lst", "methods"), "did you mean 'list'"),
}  # fmt: skip


@pytest.fixture
def bad_files(tmp_path, bench):
    """Everything wrong that the table above names."""
    tiny = TinyData(tmp_path / "data")
    tiny.write_retrieval("Half")
    (tmp_path / "data" / "Half" / "queries.jsonl").unlink()
    tiny.write_sts("Columns", [{"left": "a", "right": "b", "score": 1}] * 4)
    tiny.write_sts("Empty", [*PAIRS, {**PAIRS[0], "sentence2": ""}])
    document = {"_id": "d0", "title": "", "text": "a text"}
    tiny.write_retrieval("Twice", corpus=[document, {**document, "text": "another"}])
    tiny.write_sts("Garbled", PAIRS).joinpath("test.jsonl").write_text('{"sentence1": ')
    (tmp_path / "two.txt").write_text("a cat\na dog\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "taken.py").write_text(PLUGIN.replace('"patient"', '"mean"'))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "README.md").write_text("# My own notes\n")


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence_and_2_and_leaves_no_results(bench, bad_files, tmp_path, what):
    arguments, words = BAD[what]
    before = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert one_sentence(err) or (what == "below a file" and one_sentence(err.splitlines(keepends=True)[-1]))
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


def test_bad_input_loses_nothing_that_was_there(bench, bad_files, tmp_path):
    bench("--methods", "mean", "--out", "res")
    before = {path: path.read_bytes() for path in (tmp_path / "res").rglob("*") if path.is_file()}
    assert bench("--methods", "mean,meen", "--out", "res")[0] == 2
    assert bench("--methods", "mean", "--out", "res", "--tasks", "Twice", "--data-dir", "data")[0] == 2
    assert before == {path: path.read_bytes() for path in (tmp_path / "res").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list",), "methods"),
        (("list", "method"), "choose from"),
        (("list", "tasks", "--data-dir", "nowhere"), "nowhere is not a folder"),
        (("list", "methods", "--plugin", "nowhere.py"), "no such file"),
        (("report", "--out", "nowhere"), "no such results folder"),
        (("report", "--out", "."), "holds no records"),
        (("doctor", "--backbone", "./nowhere"), "no such folder"),
        (("doctor", "--backbone", MODEL, "--device", "tpu"), "choose auto"),
    ],
)
def test_sub_commands_refuse_in_one_sentence_too(bench, tmp_path, arguments, words):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = bench(*arguments, run=False)
    assert (code, out) == (2, "")
    assert words in err
    assert one_sentence(err)
    assert sorted(tmp_path.rglob("*")) == before


# ---- lists and help


def test_list_methods_gives_bare_names_a_line_each(bench):
    code, out, _ = bench("list", "methods", "--training-free", "--names", run=False)
    assert (code, out.splitlines()) == (0, catalogue_names("training-free"))


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("methods", "second-to-last"),
        ("tasks", "STSBenchmark"),
        ("suites", "nano-beir"),
        ("backbones", "all-MiniLM-L6-v2"),
    ],
)
def test_each_list_names_what_there_is_on_unbroken_lines(bench, what, some):
    code, out, _ = bench("list", what, run=False)
    assert code == 0
    assert any(line.split()[:1] == [some] for line in out.splitlines())
    code, out, _ = bench("list", what, "--names", run=False)
    assert code == 0
    assert some in out.splitlines()


def test_list_tasks_knows_the_data_folder(bench, data):
    _, out, _ = bench("list", "tasks", "--data-dir", data, run=False)
    said = {line.split("  ")[0].strip(): line.rstrip() for line in out.splitlines()}
    assert said["BIOSSES"].endswith("in the data folder")
    assert said["TinySTS"].endswith("in the data folder, not in MTEB")


def test_no_arguments_show_the_help_and_are_no_success(bench):
    code, out, _ = bench(run=False)
    assert code == 2
    assert "usage: run_bench.py" in out


# ---- the process itself


def python(*arguments, **settings):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, **settings)


def test_help_comes_without_any_heavy_import():
    code = (
        "import sys\n"
        "from fusebench.run_bench import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'mteb', 'transformers', 'numpy', 'pandas', 'rich', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "--available-only" in done.stdout


def test_list_methods_does_not_import_mteb():
    code = (
        "import sys\n"
        "from fusebench.run_bench import main\n"
        "assert main(['list', 'methods']) == 0\n"
        "heavy = {'mteb', 'datasets', 'sentence_transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_clone_that_is_not_installed_says_how_to_install(tmp_path):
    shutil.copy(SCRIPT, tmp_path)
    done = python("-S", "-E", "run_bench.py", "--methods", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", INSTALL + "\n")


def test_output_that_nobody_reads_to_the_end_is_no_crash():
    reader, writer = os.pipe()
    listing = subprocess.Popen([sys.executable, SCRIPT, "list", "methods"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    os.close(reader)
    _, messages = listing.communicate()
    assert (listing.returncode, messages) == (141, b"")


def test_ctrl_c_exits_with_130_and_the_next_run_keeps_the_finished_cells(bench, tmp_path, data):
    arguments = ["--methods", "mean,cls,patient,max", "--plugin", "plugin.py", "--out", "res"]
    asked = [*arguments, "--backbone", MODEL, "--tasks", "TinySTS", "--data-dir", str(data)]
    marker = tmp_path / "waiting"
    running = subprocess.Popen(
        [sys.executable, SCRIPT, *asked],
        cwd=tmp_path,
        env={**os.environ, "TEST_WAIT": str(marker)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C as in a terminal: what runs in the background is started with it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 90
    # The vectors of the third are under way while the second is scored: until both are so far.
    while not (marker.exists() and len(list(tmp_path.glob("res/runs/*/*/*.json"))) == 2):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, messages = running.communicate(timeout=60)
    assert running.returncode == 130, messages
    assert messages.splitlines()[-1].startswith("interrupted after ")
    assert "Traceback" not in messages
    kept = {file: file.read_bytes() for file in tmp_path.glob("res/runs/*/*/*.json")}
    assert sorted(record.spec.method.name for record in Store(tmp_path / "res").records()) == ["cls", "mean"]
    code, _, err = bench(*arguments)
    assert code == 0
    assert "2 cells scored" in err
    assert "2 kept, 0 failed" in err
    assert kept == {file: file.read_bytes() for file in kept}
    assert len(Store(tmp_path / "res").records()) == 4


# ---- a disk that refuses


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "--out"), (errno.EACCES, "--out"), (errno.EDQUOT, "free some")],
)
def test_a_disk_that_refuses_is_one_sentence_and_2_and_loses_nothing(bench, tmp_path, monkeypatch, number, advice):
    """Whichever file it is that cannot be written: the first, the last, any between."""
    asked = ("--methods", "cls,mlp+batch-softmax", "--steps", "2", "--out", "res")
    assert bench("--methods", "mean", "--out", "res")[0] == 0
    kept = {path: path.read_bytes() for path in tmp_path.glob("res/runs/*/*/mean-*")}
    for allowed in (0, 3, 5):
        refuse_after(monkeypatch, allowed, OSError(number, os.strerror(number)))
        code, _, err = bench(*asked)
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) == (2, 1), err
        assert os.strerror(number) in errors[0]
        assert advice in errors[0] or "free some room" in errors[0]
        assert "Traceback" not in err
        assert kept == {path: path.read_bytes() for path in kept}
        assert Store(tmp_path / "res").finished()
    assert list(tmp_path.rglob(".*.tmp")) == []


def refuse_after(monkeypatch, allowed, error):
    """Lets so many files be written and then none."""
    real, count = os.fsync, 0

    def fsync(descriptor):
        nonlocal count
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            count += 1
            if count > allowed:
                raise error
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
