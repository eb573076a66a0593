"""The documentation's page of each part: from the registry, the boards and what is noted by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generator.boards import table, written_boards
from docs.generator.docstrings import described
from docs.generator.method_pages import page, write_all
from docs.generator.notes import Note, read_notes
from docs.generator.reading_figure import SHAPE, TOKENS, moved_by
from fusebench.methods import registry
from fusebench.methods.grammar import parse
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import cards, register
from fusebench.methods.states import Needs

OWN = [card for card in cards() if card.part.__module__.startswith("fusebench.methods.")]

BOARD = """\
rank,method,seeds,STS12,STS12 sd,STS avg,STS avg sd,group,dims
1,mean,,72.37,,78.59,,a,384
'= mean (cosine),mean-sqrt-len,,72.37,,78.59,,,384
2,scalar-mix(first=1)+batch-softmax,5,60.14,0.25,69.31,0.05,b,384
"""


@pytest.fixture
def results(tmp_path):
    """A folder with one board."""
    folder = tmp_path / "results" / "leaderboards" / "a-backbone"
    folder.mkdir(parents=True)
    (folder / "a-suite.csv").write_text(BOARD)
    (folder / "a-suite.md").write_text("# STS12: a backbone\n\n- Setting: float32.\n- Rank: Borda.\n")
    return tmp_path / "results"


@pytest.fixture
def part(monkeypatch):
    """A registered fusion that nobody wrote a note of."""
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))

    @register("brand-new", paper="arXiv:1234.56789")
    class BrandNew(Fusion):
        """The first token: `h_0[0] * c`, with *stars* and <tags>.

        Args:
            factor: what c is;
                over two lines.

        Departures: it_is new.
        """

        needs = Needs.FIRSTS

        def __init__(self, shape, *, factor: float = 2.0):
            super().__init__()
            self.layers, self.out_dim = (0,), shape.dim

        def forward(self, states):
            return states.first(0)

    return registry.card("brand-new")


@pytest.mark.parametrize("card", OWN, ids=lambda card: card.name)
def test_every_part_has_a_page_with_all_that_its_card_and_docstring_say(card):
    said, text = described(card.part), page(card, read_notes()[card.name], "numbers\n")
    assert text.startswith(f"# {card.name}\n")
    assert said.promise in text
    assert said.departures[1:] in text
    assert said.departures
    assert all(f"`{name}=" in text for name in card.defaults)
    assert all(meaning in text for meaning in said.arguments.values())
    assert text.count("<svg") == text.count("</svg>") == 1
    assert "\n\n" not in text[text.index("<svg") : text.index("</svg>")]  # Markdown would end it there


def test_a_new_part_gets_a_page_by_itself(part, results, tmp_path):
    write_all(tmp_path / "methods", results=results)
    files = {file.stem for file in (tmp_path / "methods").glob("*.md")}
    assert files == {card.name for card in cards()} | {"index"}
    overview = (tmp_path / "methods" / "index.md").read_text()
    assert "(brand-new.md): The first token" in overview
    text = (tmp_path / "methods" / "brand-new.md").read_text()
    assert "[arXiv:1234.56789](https://arxiv.org/abs/1234.56789)" in text
    assert "No board in the repository has this part." in text


def test_pages_that_are_no_longer_of_a_part_go(results, tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "gone.md").write_text("# gone\n")
    write_all(tmp_path / "methods", results=results)
    assert not (tmp_path / "methods" / "gone.md").exists()


def test_prose_of_a_docstring_is_shown_as_written_and_formulas_are_code(part):
    said = described(part.part)
    assert said.promise == r"The first token: `h_0[0] * c`, with \*stars\* and \<tags\>."
    assert said.arguments == {"factor": "what c is; over two lines."}
    assert said.departures == r"it\_is new."


def test_a_part_that_keeps_silent_about_departures_is_refused(part):
    part.part.__doc__ = "Only a promise."
    with pytest.raises(ValueError, match="BrandNew"):
        page(part, Note(), "")


def test_notes_are_of_parts_that_there_are_and_no_built_in_part_is_without():
    assert set(read_notes()) == {card.name for card in OWN}
    assert all(note.when for note in read_notes().values())


def read(sentence):
    """The places that a fusion reads, (state, token)."""
    return {tuple(place) for place in moved_by(parse(sentence).build_fusion(SHAPE)).nonzero().tolist()}


LAST, TEXT = SHAPE.blocks, range(len(TOKENS))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("cls", {(LAST, 0)}),
        ("mean(layer=2)", {(2, token) for token in TEXT}),
        ("last-token", {(LAST, len(TOKENS) - 1)}),
        ("first-last(first=0)", {(layer, token) for layer in (0, LAST) for token in TEXT}),
        ("max-cls", {(layer, 0) for layer in range(1, LAST + 1)}),
        ("hire(untrained)", {(layer, token) for layer in range(1, LAST + 1) for token in TEXT}),
        ("prompt-mask", {(LAST, 3)}),
    ],
)
def test_the_figure_shows_what_a_fusion_reads(sentence, expected):
    assert read(sentence) == expected


def test_our_numbers_are_the_rows_of_the_part_with_their_spread_and_the_mean(results):
    (board,) = written_boards(results)
    assert (board.title, board.setting) == ("STS12: a backbone", ("Setting: float32.",))
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in table(board, "scalar-mix") if line.startswith("|")]
    assert cells[0] == ["method", "rank", "STS avg", "group", "seeds", "STS12"]
    assert cells[2:] == [
        ["`mean`", "1 of 2", "78.59", "a", "", "72.37"],
        ["`scalar-mix(first=1)+batch-softmax`", "2 of 2", "69.31 ± 0.05", "b", "5", "60.14 ± 0.25"],
    ]
    assert table(board, "mean-sqrt-len") == table(board, "scalar") == []


def test_every_method_of_the_boards_in_the_repository_is_one_that_can_be_read():
    boards = written_boards(Path(__file__).resolve().parents[1] / "results")
    assert boards
    assert all(table(board, "mean") for board in boards)
