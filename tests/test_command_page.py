"""The documentation's page of commands, made from their parsers."""

from __future__ import annotations

import pytest

from docs.generator.command_page import parser_of, write
from fusebench.run_bench import COMMANDS


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "commands.md"
    write(file)
    return file.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_every_command_is_there_with_what_it_means(name, page):
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    actions = [action for action in parser_of(COMMANDS[name])._actions if action.dest != "help"]
    assert actions
    assert all(f"`{flag}" in section for action in actions for flag in action.option_strings)
    assert section.count("\n: ") == len(actions)


def test_defaults_are_filled_in(page):
    assert ": default: 10000\n" in page
    assert "%(" not in page


def test_asking_for_a_parser_runs_nothing():
    ran = []

    def command(arguments):
        ran.append(arguments)
        return 0

    with pytest.raises(ValueError, match="reads no flags"):
        parser_of(command)
    assert ran == [["--help"]]
