"""A page for each registered part and an overview of all, written from the registry, the catalogue and the boards."""

from __future__ import annotations

import shutil
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import fusebench.methods
from docs.generator import chain_figure, reading_figure
from docs.generator.boards import WrittenBoard, table, written_boards
from docs.generator.docstrings import Described, described, escaped
from docs.generator.notes import Note, read_notes
from fusebench.methods.parts import Reads
from fusebench.methods.registry import Card, Kind, cards
from fusebench.methods.spelling import write_value
from fusebench.methods.states import Needs, StateShape
from fusebench.study.catalogue import CATALOGUE, Entry

_ = fusebench.methods  # importing it registers the parts

KINDS: dict[Kind, tuple[str, str]] = {
    "fusion": ("Fusions", "How the states of the layers become one vector."),
    "objective": ("Objectives", "What a method is trained with; several in one sentence are stages."),
    "guide": ("Guides", "Penalties on the attention maps of a backbone in training."),
    "sampler": ("Samplers", "Which training rows share a batch."),
    "transform": ("Transforms", "Closed-form maps of finished vectors, fitted on texts that are no test texts."),
}
_MINILM = StateShape(blocks=6, dim=384)  # of the default backbone
_COSTS = {
    Needs.MEANS: "means over the tokens of a layer",
    Needs.FIRSTS: "first tokens of a layer",
    Needs.TOKENS: "every token of a layer",
    Needs.ATTENTION: "attention maps",
    Needs.MARKER: "the place of the mask token",
}
_RUNS: dict[Kind, str] = {
    "fusion": "{name}",
    "objective": "mean+{name} --regime finetune --train {rows} --data-dir DATA",
    "guide": "mean+batch-softmax+{name} --regime finetune --train nli --data-dir DATA",
    "sampler": "mean+batch-softmax+{name} --regime finetune --train nli --data-dir DATA",
    "transform": "mean+{name}",
}
_ROWS: dict[Reads, str] = {
    "sentences": "wiki1m",
    "pairs": "nli",
    "triplets": "nli",
    "scored-pairs": "stsb-train",
}
_NOT_CONFIRMED = (
    "None is quoted: nobody published one for this part, or none could be confirmed at its source. "
    "[Reproducing the papers](../guide/papers.md) says what is confirmed."
)


def write_all(folder: Path, *, results: Path) -> None:
    """Writes the pages anew: one a part, and `index.md`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    notes, measured = read_notes(), written_boards(results)
    (folder / "measured").mkdir()  # the numbers alone, for other pages to include
    for card in cards():
        numbers = "\n".join(_measured(card, measured))
        (folder / "measured" / f"{card.name}.inc").write_text(numbers, encoding="utf-8")
        text = page(card, notes.get(card.name, Note()), numbers)
        (folder / f"{card.name}.md").write_text(text, encoding="utf-8")
    (folder / "index.md").write_text(overview(cards()), encoding="utf-8")


def overview(parts: Sequence[Card]) -> str:
    """The parts by kind, a line each, and the navigation."""
    lines = ["# Methods", "", "A method is a sentence of parts. Each part has a page, made from its code.", ""]
    for kind, (title, about) in KINDS.items():
        own = [card for card in parts if card.kind == kind]
        lines += [f"## {title}", "", about, ""]
        lines += [f"- [`{card.name}`]({card.name}.md): {described(card.part).promise}" for card in own]
        lines += ["", "```{toctree}", ":hidden:", f":caption: {title}", "", *(card.name for card in own), "```", ""]
    return "\n".join(lines)


def page(card: Card, note: Note, numbers: str) -> str:
    """The page of one part, with our numbers in Markdown."""
    said = described(card.part)
    drawing = reading_figure.figure(card) if card.kind == "fusion" else chain_figure.figure(card.kind)
    lines = [
        f"# {card.name}",
        "",
        f"{card.kind.capitalize()}{', learned' if card.learned else ''}; source: {_source(card.paper)}.",
        "",
        said.promise,
        "",
        drawing,
        "",
        *([said.text, ""] if said.text else []),
        *_parameters(card, said),
        "## Not as published",
        "",
        said.departures[:1].upper() + said.departures[1:],
        "",
        *_when(card, note),
        *_how(card),
        *_published(note),
        "## Our numbers",
        "",
        numbers,
    ]
    return "\n".join(lines)


def _source(paper: str) -> str:
    places = {"arXiv:": "https://arxiv.org/abs/", "doi:": "https://doi.org/"}
    for prefix, address in places.items():
        if paper.startswith(prefix):
            return f"[{paper}]({address}{paper.removeprefix(prefix)})"
    return f"<{paper}>" if paper.startswith("https://") else escaped(paper)


def _parameters(card: Card, said: Described) -> list[str]:
    """A definition list; a table would be too wide for a phone."""
    lines = ["## Parameters", ""]
    for name, default in card.defaults.items():
        takes = " or ".join(_takes(card.types[name]))
        term = f"`{name}={write_value(default)}`"
        if name in said.arguments:
            lines += [f"{term}, {takes}", f": {said.arguments[name]}", ""]
        else:
            lines += [f"- {term}, {takes}"]
    return [*lines, ""] if card.defaults else []


def _takes(annotation: Any) -> Iterator[str]:
    """The values of a hyper-parameter, as a sentence writes them."""
    if get_origin(annotation) in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _takes(one)
    elif get_origin(annotation) is Literal:
        yield from (f"`{write_value(value)}`" for value in get_args(annotation))
    else:
        names: Mapping[Any, str] = {types.NoneType: "`none`", int: "a whole number", float: "a number"}
        yield names.get(annotation, {bool: "`true` or `false`", str: "text"}.get(annotation, str(annotation)))


def _when(card: Card, note: Note) -> list[str]:
    lines = ["## When to use it", ""]
    lines += [note.when, ""] if note.when else []
    if card.kind == "fusion":
        fusion = card.part(_MINILM)
        reads = " and ".join(words for need, words in _COSTS.items() if need in fusion.needs)
        cost = "stored states are enough" if fusion.needs.pooled else "it runs on the live batch"
        cost = "its template costs a pass of its own" if fusion.template else cost
        weights = f"{sum(weight.numel() for weight in fusion.parameters()):,}" if card.learned else "no"
        vector = reading_figure.width_in_words(card)
        lines += [
            f"It reads {reads}; {cost}. Its vector is {vector}. On the default backbone it has {weights} weights "
            "of its own.",
            "",
        ]
    return lines


def _how(card: Card) -> list[str]:
    named = [entry for entry in CATALOGUE if _has(entry, card.name)]
    rows = _ROWS[card.part().reads[0]] if card.kind == "objective" else ""
    asked = _RUNS[card.kind].format(name=card.name, rows=rows)
    lines = ["## How to run it", "", "```bash", f"fusebench --methods {asked}", "```", ""]
    if named:
        lines += ["In the catalogue:", ""]
        lines += [f"- `{entry.name}`, {entry.regime}: `{entry.sentence}`, {escaped(entry.about)}" for entry in named]
        lines += [""]
    return lines


def _has(entry: Entry, part: str) -> bool:
    names = [piece.split("(")[0].split("@")[0] for piece in entry.sentence.split("+")]
    return part in names


def _published(note: Note) -> list[str]:
    lines = ["## Published numbers", ""]
    if not note.published:
        return [*lines, _NOT_CONFIRMED, ""]
    lines += ["Of other backbones than ours, so not to be compared with the numbers below.", ""]
    lines += ["| what | number | read in |", "| --- | --- | --- |"]
    return [*lines, *(f"| {row['what']} | {row['number']} | {row['source']} |" for row in note.published), ""]


def _measured(card: Card, measured: Sequence[WrittenBoard]) -> list[str]:
    found = [(board, rows) for board in measured if (rows := table(board, card.name))]
    if not found:
        return ["No board in the repository has this part.", ""]
    lines = ["`mean` stands among them to compare with; [how to read a board](../guide/board.md).", ""]
    for board, rows in found:
        file = f"../../results/{board.file.relative_to(board.file.parents[2]).as_posix()}"
        lines += [f"**{escaped(board.title)}**, {{download}}`whole board <{file}>`", "", *rows, ""]
        lines += [*(f"- {escaped(line)}" for line in board.setting), ""]
    return lines
