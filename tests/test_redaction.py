"""Tokens and passwords are hidden wherever something is said."""

import logging

import pytest

from fusebench.benchmarks.redaction import holds_secret, redacted
from fusebench.errors import InputError
from fusebench.run_bench import COMMANDS, main
from fusebench.study.screen import Screen, log_to_stderr

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


def test_the_screen_the_log_and_errors_show_none(capsys, monkeypatch):
    def refuse(arguments):
        raise InputError(f"the hub refused {TOKEN} and {OWN}")

    monkeypatch.setitem(COMMANDS, "refuse", refuse)
    assert main(["refuse"]) == 2
    Screen().print(f"FAILED {TOKEN}", markup=False)
    before = logging.getLogger().handlers[:]
    logging.getLogger().handlers = []
    try:
        log_to_stderr(logging.INFO)
        try:
            raise ValueError(OWN)
        except ValueError as error:
            logging.getLogger("a").warning("header %s", TOKEN, exc_info=error)
    finally:
        logging.getLogger().handlers = before
    out, err = capsys.readouterr()
    assert TOKEN not in out + err
    assert OWN not in out + err
    assert "error: the hub refused [hidden] and [hidden]" in err
    assert "ValueError: [hidden]" in err
    assert out == "FAILED [hidden]\n"
