"""Every flag can be given by a file, means the same there, and yields to the command line."""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path

import pytest

from fusebench.study import flags
from fusebench.study.parser import Switch

PARSERS = {
    name.removesuffix("_parser"): make(*{"record_parser": ["replay", ""]}.get(name, []))
    for name, make in inspect.getmembers(flags, inspect.isfunction)
    if name.endswith("_parser")
}
# One value of each type of flag, as a file has it and as the command line has it.
VALUES = {
    None: ("a text", "a text"),
    int: (7, "7"),
    float: (2.5, "2.5"),
    Path: ("some/where", "some/where"),
    flags.results_place: ("s3://bucket/results", "s3://bucket/results"),
    flags._positive: (3, "3"),
    flags._rate: (1e-05, "0.00001"),
    flags._comma: (["A", "B"], "A,B"),
    flags._seeds: ([0, 2], "0,2"),
    flags._seed: (4, "4"),
    flags._executor: ("ray:auto", "ray:auto"),
    flags._amount: (0.5, "0.5"),
}
POSITIONALS = {"list": ["tasks"], "push": ["model"], "export": ["mean"], "record": ["record.json"]}
REQUIRED = {"gate": ["--baseline=b.json"], "push": ["--repo=org/name"], "export": ["--to=model"]}


def optional_flags():
    for command, parser in PARSERS.items():
        for action in parser._actions:
            if action.option_strings and action.dest not in ("help", "config"):
                yield pytest.param(command, action, id=f"{command}-{action.dest}")


def both_ways(action):
    """Pairs of a value in a file and the words on the command line that mean the same."""
    name = next(text for text in action.option_strings if text.startswith("--"))
    if isinstance(action, argparse.BooleanOptionalAction):
        return [(True, [name]), (False, [name.replace("--", "--no-", 1)])]
    if action.nargs == 0:
        return [(2, [name, name])]
    value, text = (action.choices[-1],) * 2 if action.choices else VALUES[action.type]
    pairs = [(value, [name, text])]
    if isinstance(action, argparse._AppendAction):
        # A list of lists is one flag said twice; `--methods a b` is one list.
        several = [value] if isinstance(value, str) else value
        pairs = [(several, [word for one in several for word in (name, one)])]
    if action.nargs == "?":
        pairs.append((True, [name]))
    return pairs


@pytest.fixture
def file(tmp_path):
    """Writes a file of flags."""

    def file(**values):
        path = tmp_path / "flags.toml"
        path.write_text("".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in values.items()))
        return str(path)

    return file


def parsed(command, *words):
    found = vars(PARSERS[command].parse_args([*map(str, words), *POSITIONALS.get(command, [])]))
    return {name: value for name, value in found.items() if name != "config"}


def test_there_are_files_for_every_command():
    assert {"run", "list", "report", "compare", "gate", "record", "diagnose", "export", "doctor"} <= set(PARSERS)


@pytest.mark.parametrize(("command", "action"), optional_flags())
def test_every_flag_means_in_a_file_what_it_means_on_the_command_line(command, action, file):
    name = next(text for text in action.option_strings if text.startswith("--"))
    required = [word for word in REQUIRED.get(command, []) if not word.startswith(f"{name}=")]
    for value, words in both_ways(action):
        asked = parsed(command, *words, *required)
        assert parsed(command, "--config", file(**{name.removeprefix("--"): value}), *required) == asked


@pytest.mark.parametrize(
    ("in_file", "words", "counts"),
    [
        ({"lr": 0.5}, ["--lr", "0.25"], {"lr": 0.25}),
        ({"methods": ["mean", "cls"]}, ["--methods", "max"], {"methods": [["max"]]}),
        ({"tasks": ["A"], "plugin": ["a.py"]}, ["--tasks", "B"], {"tasks": [["B"]], "plugin": [Path("a.py")]}),
        ({"rerun": True, "test": False}, ["--no-rerun", "--test"], {"rerun": False, "test": True}),
        ({"verbose": 2}, ["-v"], {"verbose": 1}),
        ({"epochs": 3, "lr": 0.5}, ["--steps", "9"], {"epochs": None, "steps": 9, "lr": 0.5}),
        # Equal to the default, and said all the same.
        ({"lr": 0.5}, ["--lr", "2e-5"], {"lr": 2e-5}),
    ],
)
def test_what_the_command_line_says_counts_instead(in_file, words, counts, file):
    for order in (["--config", file(**in_file), *words], [*words, "--config", file(**in_file)]):
        found = parsed("run", *order)
        assert {name: found[name] for name in counts} == counts


@pytest.mark.parametrize(
    ("in_file", "why"),
    [
        ({"metods": ["mean"]}, "there is no flag 'metods' (did you mean 'methods'?)"),
        ({"data_dir": "DATA"}, "(did you mean 'data-dir'?)"),
        ({"config": "other.toml"}, "there is no flag 'config'"),
        ({"lr": "fast"}, "argument --lr: 'fast' is not a number above 0"),
        ({"seeds": [0, -1]}, "argument --seeds: 0,-1: seeds are 0 to"),
        ({"regime": "thawed"}, "argument --regime: invalid choice: 'thawed'"),
        ({"epochs": 1, "steps": 2}, "not allowed with"),
        ({"rerun": "yes"}, "rerun is true or false, not 'yes'"),
        ({"limit": True}, "limit takes a value, not true"),
        ({"out": ["a", "b"]}, "out takes one value, not a list"),
        ({"methods": []}, "methods takes text, a number or a list of them that is not empty"),
        ({"tasks": [True]}, "tasks takes text, a number or a list of them"),
        ({"verbose": "very"}, "verbose is a number"),
    ],
)
def test_what_a_file_cannot_say_is_refused_in_a_sentence_that_names_the_file(in_file, why, file, capsys):
    path = file(**in_file)
    with pytest.raises(SystemExit, match="2"):
        parsed("run", "--config", path)
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: ")
    assert why in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"lr = ", "is no TOML file (Invalid value (at end of document))"),
        (b"\xff", "is no TOML file"),
        (b"[training]\nlr = 1", "there is no flag 'training'"),
        (b"lr = {a = 1}", "lr takes text, a number or a list of them"),
        (b"lr = 1979-05-27", "lr takes text, a number or a list of them"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_none_is_refused(content, why, tmp_path, capsys):
    path = tmp_path / "flags.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        parsed("run", "--config", path)
    assert f"error: {path}: {why}" in capsys.readouterr().err


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_file(file, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("run", "--config", file(lr=0.5), "--seeds", "x")
    assert capsys.readouterr().err.startswith("error: argument --seeds: 'x' should be")


def test_the_flags_that_stand_alone_can_all_be_turned_off_again():
    switches = [action for parser in PARSERS.values() for action in parser._actions if isinstance(action, Switch)]
    assert len(switches) > 10
    for action in switches:
        long = [text for text in action.option_strings if text.startswith("--")]
        assert long[1] == long[0].replace("--", "--no-", 1)
        assert action.default is False


def test_help_is_shown_beside_a_file_too(file, capsys):
    with pytest.raises(SystemExit, match="0"):
        parsed("run", "--config", file(lr=0.5), "--help")
    assert "(default: 2e-05)" in capsys.readouterr().out
