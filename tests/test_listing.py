"""What `list` prints of what there is."""

from __future__ import annotations

import pytest

from fusebench.methods.registry import cards
from fusebench.run_bench import main


@pytest.fixture
def listed(capsys):
    def show(*arguments):
        assert main(["list", *arguments]) == 0
        return capsys.readouterr().out

    return show


def test_formulas_are_shown_with_all_their_brackets(listed):
    text = listed("methods")
    assert all(card.summary in text for card in cards() if card.part.__module__.startswith("fusebench."))
    assert "h[position of the mask]" in text


def test_a_revision_is_shown_as_something_that_may_be_left_out(listed):
    assert "ORG/NAME[@REVISION]" in listed("backbones")
