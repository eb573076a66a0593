"""`run_bench.py diagnose`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json

import pytest

from fusebench.benchmarks.diagnosis_files import read_diagnoses
from fusebench.benchmarks.embedding_space import QUANTITIES
from fusebench.run_bench import main
from tests.conftest import TinyData
from tests.tiny_gate import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def command(world, tmp_path, capsys):
    """One command line: exit code, output, messages, the diagnoses it left."""

    def command(*arguments):
        places = {"--backbone": world / "models" / "tiny-bert", "--data-dir": world / "data", "--out": tmp_path}
        given = [str(part) for flag in places.items() if flag[0] not in arguments for part in flag]
        code = main(["diagnose", *map(str, arguments), *given, "--device", "cpu"])
        said = capsys.readouterr()
        found, rejected = read_diagnoses(tmp_path / "diagnostics")
        assert rejected == []
        return code, said.out, said.err, found

    return command


def test_layers_of_two_poolings_are_measured_and_printed_unless_methods_are_named(command):
    code, out, messages, (found,) = command("--tasks", "TinySTS")
    names = [one.method.name for one in found.spec.methods]
    layers = range(3)
    assert code == 0
    assert names == [*(f"mean(layer={k})" for k in layers), "mean", "cls(layer=1)", "cls(layer=2)", "cls"]
    for name, space in zip(names, found.spaces, strict=True):
        row = next(line for line in out.splitlines() if f"│ {name} " in line)
        assert all(quantity.text(getattr(space, quantity.field)) in row for quantity in QUANTITIES)
    assert "gold score above" in out
    assert "rows of length 1 for anisotropy" in out
    assert "linear CKA between the layers of cls" in out
    assert f"{found.diagnosis_id}.json is shown by run_bench.py report --html" in messages
    assert found.attention == ()


def test_attention_is_read_on_request(command):
    code, out, _, (found,) = command("--tasks", "TinySTS", "--methods", "mean", "--attention")
    assert code == 0
    assert len(found.attention[0].blocks) == 3
    assert "[CLS]" in out
    assert "spread evenly" in out


def test_a_second_command_with_other_settings_leaves_the_first_ones_file(command):
    command("--tasks", "TinySTS", "--methods", "mean")
    command("--tasks", "TinySTS", "--methods", "mean")
    *_, found = command("--tasks", "TinySTS", "--methods", "mean", "--limit", "30")
    assert sorted(one.spec.limit for one in found) == [30, 5000]


def test_the_file_holds_no_text_of_the_task_and_no_path(command, world, tmp_path):
    command("--tasks", "TinySTS", "--attention")
    (path,) = (tmp_path / "diagnostics").iterdir()
    text = path.read_text()
    sentences = [
        json.loads(line)["sentence1"] for line in (world / "data/TinySTS/test.jsonl").read_text().splitlines()
    ]
    assert not any(sentence in text for sentence in sentences)
    assert str(world) not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(("names", "task"), [(["TinySTS"], "LeeSTS"), (["TinySTS", "STSBenchmark"], "STSBenchmark")])
def test_without_a_task_it_is_stsbenchmark_if_that_is_there(command, tmp_path, names, task):
    tiny = TinyData(tmp_path / "data")
    for name in names:
        tiny.write_sts(name, [{"sentence1": f"w{i}", "sentence2": f"w{i} w1", "score": i} for i in range(12)])
    *_, (found,) = command("--methods", "mean", "--data-dir", tiny.root)
    assert found.spec.task.name == task


def test_a_task_too_small_for_neighbours_fails_by_name(command, tmp_path):
    tiny = TinyData(tmp_path / "data")
    tiny.write_sts("Few", [{"sentence1": f"w{i}", "sentence2": "w9", "score": i} for i in range(3)])
    code, _, messages, found = command("--methods", "mean", "--tasks", "Few", "--data-dir", tiny.root)
    assert (code, found) == (1, [])
    assert "FAILED mean on Few: 4 texts have no 10 nearest others each" in messages


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--methods", "men"), "no method 'men'"),
        (("--methods", "mlp", "--tasks", "TinySTS"), "has no training on this backbone"),
        (("--trained", "--tasks", "TinySTS"), "holds no training of"),
        (("--tasks", "TinyST"), "no task 'TinyST'"),
        (("--backbone", "./nowhere"), "no such folder"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused_in_one_sentence(command, arguments, reason):
    code, _, messages, found = command(*arguments)
    assert (code, found) == (2, [])
    assert messages.startswith("error: ")
    assert reason in messages
    assert messages.count("\n") == 1
