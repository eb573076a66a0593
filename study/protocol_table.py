"""The table of a protocol on the terminal and in Markdown: our scores, published ones, and what is not the same."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusebench.benchmarks.atomic import atomic_write, slug
from fusebench.benchmarks.board_markup import markdown_table, plain
from fusebench.benchmarks.store import Store
from fusebench.study.plan import Plan
from fusebench.study.protocol_card import Protocol, Published
from fusebench.study.protocol_choice import ChosenProtocol
from fusebench.study.protocol_scores import CountedTasks, Scores, protocol_scores

_NONE = "-"
_AVERAGE = "average"
_AGGREGATION = {
    "all": "one correlation over all pairs of a year, as mteb does",
    "mean": "the mean of the correlations within a year's sub-corpora",
    "wmean": "the mean of the correlations within a year's sub-corpora, weighted by their pairs",
}
_SICK = {"all": "all its pairs, as mteb does", "SemEval test": "the test part of SemEval 2014 (4,927 of 9,927 pairs)"}


def show_protocol(chosen: ChosenProtocol, plan: Plan, store: Store, tasks: CountedTasks, console: Console) -> str:
    """Prints the table, writes it to `OUT/protocols/<backbone>/<name>.md`, and returns a sentence that says where.

    Raises:
        InputError: samples of a cell are missing or damaged, or the disk refused.
    """
    card, backbone = chosen.card, plan.backbone.source.name
    table = protocol_table(card, backbone, protocol_scores(card, plan, store, tasks), tasks.missing)
    path = store.out / "protocols" / slug(backbone) / f"{card.name}.md"
    atomic_write(path, page(chosen, backbone, table, tasks.missing, here=_here(plan)))
    console.print(Text(f"protocol {card.name}: {backbone}", style="bold"), soft_wrap=True)
    shown = Table(*table.columns, box=None, pad_edge=False)
    for row in table.itertuples(index=False):
        shown.add_row(*map(Text, row))
    console.print(shown)
    if tasks.missing:
        console.print(Text(_incomplete(card, tasks.missing), style="dim"), soft_wrap=True)
    return f"the table of the protocol, with what is not the same as in the study, is {path}"


def protocol_table(card: Protocol, backbone: str, scores: Scores, missing: Mapping[str, str]) -> pd.DataFrame:
    """Rows of text: every method, then, where the study printed scores of these weights, those and the difference.

    An average stands only where the study prints one and every task of it has a score.
    """
    columns = [*card.tasks, *([_AVERAGE] if card.average else [])]
    rows: list[tuple[str, ...]] = []
    for method, by_task in scores.items():
        own = {task: statistics.fmean(values) for task, values in by_task.items()}
        if card.average and not missing and len(own) == len(card.tasks):
            own[_AVERAGE] = statistics.fmean(own.values())
        seeds = max(map(len, by_task.values()))
        label = "ours" if seeds == 1 else f"ours, mean of {seeds} seeds"
        rows.append((method, label, *_cells(own, columns, "{:.2f}")))
        for published in _of_these_weights(card, backbone, method):
            rows.append((method, "published", *_cells(published.scores, columns, "{:.2f}")))
            gaps = {name: own[name] - value for name, value in published.scores.items() if name in own}
            rows.append((method, "difference", *_cells(gaps, columns, "{:+.2f}")))
    return pd.DataFrame(rows, columns=["method", "whose", *columns])


def _cells(values: Mapping[str, float], columns: list[str], form: str) -> Iterator[str]:
    return (form.format(values[name]) if name in values else _NONE for name in columns)


def _of_these_weights(card: Protocol, backbone: str, method: str) -> list[Published]:
    name = backbone.rpartition("/")[2]
    return [one for one in card.published if (one.weights, one.method) == (name, method)]


def _here(plan: Plan) -> list[str]:
    """What a run decides where the card leaves it open."""
    limit = plan.backbone.limit
    fit = [f"transforms are fitted on {plan.fit.spec.count} texts of {plan.fit.spec.name}"] if plan.fit else []
    return [f"at most {limit.tokens} tokens a text ({limit.source}), {plan.backbone.dtype}", *fit]


def page(
    chosen: ChosenProtocol, backbone: str, table: pd.DataFrame, missing: Mapping[str, str], *, here: Sequence[str]
) -> str:
    """The table in Markdown, and below it what the protocol is, what is left out, changed and not confirmed."""
    card = chosen.card
    lines = [f"# Protocol {card.name}: {plain(backbone)}", "", f"{card.about}.", "", markdown_table(table), ""]
    lines += [f"- {line}." for line in (*map(plain, _missing_lines(card, missing)), *facts(card))]
    sources = dict.fromkeys(one.source for one in card.published if _of_these_weights(card, backbone, one.method))
    lines += [f"- Published: {source}; the weights are known by their name alone." for source in sources]
    lines += [f"- In this run: {plain(line)}." for line in here]
    for title, notes in (
        ("Changed by flags", tuple(map(plain, chosen.changes))),
        ("Done differently here", card.departures),
        ("Not confirmed", card.unconfirmed),
    ):
        if notes:
            lines += ["", f"## {title}", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def facts(card: Protocol) -> tuple[str, ...]:
    """What the card says, a sentence without full stop each."""
    average = f"called {card.average}, of these tasks" if card.average else "none over just these tasks"
    return (
        f"Spearman's correlation of cosines, x100; STS12 to STS16: {_AGGREGATION[card.aggregation]}",
        *([f"SICK-R: {_SICK[card.sick]}"] if "SICK-R" in card.tasks else []),
        f"Average: {average}",
        f"Methods of the study, in the words used here: {', '.join(f'`{method}`' for method in card.methods)}",
        f"Layers: {card.layers}",
        f"Pooling: {card.pooling}",
        f"Texts: {card.text}",
        f"Cut at: {card.length}",
        *([f"Transforms are fitted on: {card.fit}"] if card.fit else []),
        f"Source: {card.source}",
    )


def _missing_lines(card: Protocol, missing: Mapping[str, str]) -> list[str]:
    if not missing:
        return []
    return [_incomplete(card, missing).rstrip("."), *(f"{name}: {why.rstrip('.')}" for name, why in missing.items())]


def _incomplete(card: Protocol, missing: Mapping[str, str]) -> str:
    scored = f"Incomplete: {len(card.tasks) - len(missing)} of {len(card.tasks)} tasks are scored"
    return f"{scored}, so there is no average." if card.average else f"{scored}."
