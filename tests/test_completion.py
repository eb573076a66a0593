"""The script that completes the command line, sourced in a bash as a user's is."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

import pytest

from fusebench.errors import InputError
from fusebench.run_bench import COMMANDS
from fusebench.study import completion
from fusebench.study.completion import script

pytest.importorskip("shtab")


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """What bash offers for the last word of a line."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "rows.tsv").touch()
    (folder / "DATA").mkdir()
    (folder / "script").write_text(script("bash"))

    def completed(line):
        words = shlex.join(line.split(" "))
        ask = f"""
            source ./script
            COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
            $(complete -p fusebench | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "--norc", "-c", ask], cwd=folder, capture_output=True, text=True)
        assert done.stderr == ""
        return set(done.stdout.split())

    return completed


def test_every_command_is_known_to_it():
    assert set(completion.COMMANDS) == set(COMMANDS)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fusebench ", set(COMMANDS)),
        ("fusebench dia", {"diagnose"}),
        ("fusebench --batch-s", {"--batch-size"}),
        ("fusebench --regime f", {"frozen", "finetune"}),
        ("fusebench --methods squ", {"squeeze-gate"}),
        ("fusebench --methods mean squ", {"squeeze-gate"}),
        ("fusebench --tasks STSB", {"STSBenchmark"}),
        ("fusebench --suite emb", {"embedded"}),
        ("fusebench --train r", {"rows.tsv"}),
        ("fusebench --data-dir ", {"DATA"}),
        ("fusebench export squ", {"squeeze-gate"}),
        ("fusebench compare mean squ", {"squeeze-gate"}),
        ("fusebench report --fig", {"--figures"}),
        ("fusebench list met", {"methods"}),
    ],
)
def test_bash_completes_commands_flags_and_names(completed, line, offered):
    assert completed(line) == offered


def test_names_that_a_shell_would_read_as_its_own_are_not_offered(completed):
    assert not any("(" in name for name in completed("fusebench --methods "))


def test_zsh_gets_a_script_of_its_own():
    said = script("zsh")
    assert said.startswith("#compdef fusebench")
    assert "squeeze-gate" in said


def test_without_shtab_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(InputError, match="python -m pip install shtab"):
        script("bash")
