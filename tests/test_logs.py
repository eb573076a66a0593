"""Messages go to stderr as far as they were asked for, and to a file that never grows without end."""

from __future__ import annotations

import errno
import logging
import os
import threading

import pytest

from fusebench.errors import InputError
from fusebench.methods import registry
from fusebench.run_bench import main
from fusebench.study import logs
from fusebench.study.display import LiveProgress
from fusebench.study.logs import logged_to_file, logged_to_stderr
from fusebench.study.screen import Screen
from tests.test_command_line import PLUGIN
from tests.tiny_gate import make_world

LOG = logging.getLogger("a.library")


def say_everything():
    LOG.debug("small")
    LOG.info("medium")
    LOG.error("large")
    Screen(stderr=True, quiet=True).print("on the screen")


@pytest.mark.parametrize(
    ("level", "heard"), [(logging.ERROR, ["large"]), (logging.INFO, ["medium", "large"]), (logging.DEBUG, None)]
)
def test_stderr_has_what_was_asked_for_and_the_file_at_least_what_informs(level, heard, tmp_path, capsys):
    before = logging.getLogger().level
    with logged_to_stderr(level), logged_to_file(tmp_path, level):
        say_everything()
    say_everything()
    err = capsys.readouterr().err
    heard = heard or ["small", "medium", "large"]
    assert [line.split(": ")[1].split(" [")[0] for line in err.splitlines()] == heard
    written = [line.split(": ", 1)[1] for line in (tmp_path / "logs" / "fusebench.log").read_text().splitlines()]
    assert written == [*["small"] * (level == logging.DEBUG), "medium", "large", "on the screen"]
    assert logging.getLogger().level == before


def test_a_full_file_is_renamed_and_no_more_than_three_older_ones_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_FILE_BYTES", 1000)
    with logged_to_file(tmp_path, logging.INFO):
        for number in range(200):
            LOG.info("%d %s", number, "x" * 90)
    files = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in files] == ["fusebench.log", *(f"fusebench.log.{k}" for k in (1, 2, 3))]
    assert all(path.stat().st_size <= 1000 for path in files)
    assert " 199 x" in files[0].read_text()


def test_a_folder_that_takes_no_file_is_one_sentence(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(InputError, match="logs"), logged_to_file(tmp_path, logging.INFO):
        pass


def test_a_disk_that_refuses_a_line_ends_no_run_and_prints_nothing(tmp_path, monkeypatch, capsys):
    def refuse(self, record):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with logged_to_file(tmp_path, logging.INFO):
        monkeypatch.setattr(logs._RedactingFormatter, "format", refuse)
        LOG.error("lost")
    assert capsys.readouterr().err == ""


def test_the_error_that_ends_a_run_is_in_the_file(tmp_path):
    with pytest.raises(InputError), logged_to_file(tmp_path, logging.INFO):
        raise InputError("nothing to run")
    with pytest.raises(ZeroDivisionError), logged_to_file(tmp_path, logging.INFO):
        raise ZeroDivisionError("planted")
    written = (tmp_path / "logs" / "fusebench.log").read_text()
    assert "error: nothing to run" in written
    assert "Traceback" in written
    assert "ZeroDivisionError: planted" in written


class Listener:
    """As much of a console as live progress speaks to, where there is no terminal."""

    is_terminal = False

    def __init__(self, enough):
        self.lines, self.heard, self._enough = [], threading.Event(), enough

    def print(self, line, **how):
        self.lines.append(line)
        if len(self.lines) == self._enough:
            self.heard.set()


def test_work_that_says_nothing_is_said_to_be_alive():
    console = Listener(enough=3)
    with LiveProgress(console, alive_seconds=0.02).running() as progress:
        progress("tokenising", 1, 3)
        assert console.heard.wait(60)
    assert console.lines[0] == "tokenising: 33 % (1 of 3)"
    assert all(line.startswith("tokenising: still at it, ") for line in console.lines[1:])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def test_a_quiet_run_says_nothing_but_boards_and_failures_and_logs_the_rest(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    asked = ["--methods", "mean,gone-wrong", "--plugin", str(tmp_path / "plugin.py"), "--tasks", "TinySTS"]
    asked += ["--backbone", str(world / "models" / "tiny-bert"), "--data-dir", str(world / "data")]
    assert main([*asked, "--fit", str(world / "fit.txt"), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert "mean" in out
    assert err.startswith("FAILED gone-wrong on TinySTS: ")
    assert err.count("\n") == 1
    written = (tmp_path / "out" / "logs" / "fusebench.log").read_text()
    assert "backbone pass 1 of 1" in written
    assert "FAILED gone-wrong on TinySTS" in written
    with pytest.raises(SystemExit):
        main([*asked, "--quiet", "--verbose"])
