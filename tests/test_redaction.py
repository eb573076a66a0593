"""Tokens and passwords are hidden wherever something is said."""

import logging

import pytest

from fusebench.benchmarks.redaction import holds_secret, redacted
from fusebench.errors import InputError
from fusebench.run_bench import COMMANDS, main
from fusebench.study.logs import logged_to_file, logged_to_stderr
from fusebench.study.screen import Screen

TOKEN = "hf_" + "aB3x" * 9
OWN = "own+token/of.the=user"
SAID = {
    f"401 for {TOKEN}.": "401 for [hidden].",
    "https://me:secret@hub.org/x and s3://key@b": "https://[hidden]@hub.org/x and s3://[hidden]@b",
    "Authorization: Bearer abc.def-123": "Authorization: Bearer [hidden]",
    f"<{OWN}>": "<[hidden]>",
}


@pytest.fixture(autouse=True)
def _token_of_the_user(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", OWN)


@pytest.mark.parametrize("text", SAID)
def test_what_gives_access_is_hidden_and_nothing_else(text):
    assert redacted(text) == SAID[text]
    assert holds_secret(text)
    assert not holds_secret(redacted(text))


@pytest.mark.parametrize(
    "text", ["hf_hub", "mean(layer=3)+whiten", "a@b.org", "https://hub.org/a@b", "bearer of news"]
)
def test_other_words_stay(text):
    assert redacted(text) == text
    assert not holds_secret(text)


def test_a_short_variable_hides_no_words(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a")
    assert redacted("a cat") == "a cat"


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_CLIENT_SECRET"]
)
def test_what_opens_a_bucket_is_hidden(name, monkeypatch):
    assert redacted("signed with key/of+a=bucket.") == "signed with key/of+a=bucket."
    monkeypatch.setenv(name, "key/of+a=bucket")
    assert redacted("signed with key/of+a=bucket.") == "signed with [hidden]."


def test_the_screen_the_logs_and_errors_show_none(capsys, monkeypatch, tmp_path):
    def refuse(arguments):
        raise InputError(f"the hub refused {TOKEN} and {OWN}")

    monkeypatch.setitem(COMMANDS, "refuse", refuse)
    assert main(["refuse"]) == 2
    Screen().print(f"FAILED {TOKEN}", markup=False)
    with logged_to_stderr(logging.INFO), logged_to_file(tmp_path, logging.WARNING):
        try:
            raise ValueError(OWN)
        except ValueError as error:
            logging.getLogger("a").warning("header %s", TOKEN, exc_info=error)
    out, err = capsys.readouterr()
    written = (tmp_path / "logs" / "fusebench.log").read_text()
    assert TOKEN not in written
    assert OWN not in written
    assert "header [hidden]" in written
    assert TOKEN not in out + err
    assert OWN not in out + err
    assert "error: the hub refused [hidden] and [hidden]" in err
    assert "ValueError: [hidden]" in err
    assert out == "FAILED [hidden]\n"


def test_a_traceback_shows_none_and_has_an_exit_code_of_its_own(capsys, monkeypatch):
    def fail(arguments):
        try:
            raise OSError(f"401 for {TOKEN}")
        except OSError as error:
            raise RuntimeError(f"no answer with {OWN}") from error

    monkeypatch.setitem(COMMANDS, "fail", fail)
    assert main(["fail"]) == 70
    out, err = capsys.readouterr()
    assert TOKEN not in out + err
    assert OWN not in out + err
    assert "OSError: 401 for [hidden]" in err
    assert "RuntimeError: no answer with [hidden]" in err
