"""The rows that learned methods are trained on, of the kind that each objective reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from fusebench.benchmarks.record import RowSetSpec
from fusebench.errors import InputError
from fusebench.study.named_sets import OfferedSet, find_set
from fusebench.study.row_files import Offer, sentences

if TYPE_CHECKING:
    from fusebench.methods.parts import Reads


@dataclass(frozen=True)
class TrainRows:
    """Rows of one kind, column by column, and what identifies them.

    Attributes:
        spec: name, kind and number of the rows; the hash covers kind, texts and labels.
        columns: one tuple of texts a column: sentences 1, pairs 2, triplets 3 (anchor, positive, negative).
        labels: of scored pairs, in [0, 1].
        scale: the lowest and highest score that became labels 0 and 1.
        source: where the rows came from, for people.
        known_leaks: tasks whose test pairs the set is known to hold, as published.
    """

    spec: RowSetSpec
    columns: tuple[tuple[str, ...], ...]
    labels: tuple[float, ...] | None
    scale: tuple[float, float] | None
    source: str
    known_leaks: tuple[str, ...] = ()

    @property
    def kind(self) -> Reads:
        """What the rows are."""
        return self.spec.kind

    def groups(self) -> tuple[int, ...]:
        """A number for each row; equal numbers mean equal first texts."""
        numbers: dict[str, int] = {}
        return tuple(numbers.setdefault(text, len(numbers)) for text in self.columns[0])

    def without(self, rows: Collection[int]) -> TrainRows:
        """The same rows but these, by number; hash and count are those of what is left.

        Raises:
            InputError: if nothing is left.
        """
        left_out = set(rows)
        kept = [row for row in range(self.spec.count) if row not in left_out]
        if not kept:
            raise InputError(f"nothing is left of the rows of {self.spec.name}; name another set.")
        columns = tuple(tuple(column[row] for row in kept) for column in self.columns)
        labels = None if self.labels is None else tuple(self.labels[row] for row in kept)
        spec = _spec(self.spec.name, self.kind, columns, labels)
        return TrainRows(spec, columns, labels, self.scale, self.source, self.known_leaks)


class RowSource:
    """Sets that are offered for training, each read once, whatever the number of objectives.

    Args:
        names: in order of preference: `lee-background` (embedded: sentences of articles that no task uses, or
            pairs of neighbours among them), `nli`, `stsb-train`, `stsb-dev`, `wiki1m`, `flickr30k` (below
            `data_dir`, else from the hub where it has them), a folder or file below `<data_dir>/train`, or a
            file: TXT (one sentence a line), JSONL, CSV or TSV, each also gzipped. One column of texts makes
            sentences, two make pairs, three triplets, two and a numeric `score` (or `label`) scored pairs, a list
            of texts a group, whose members make pairs.
        data_dir: where named sets lie.
        limit: keep the first rows of each set, of the kind that is asked for; None keeps all.
        flag: what the user gave the names with, for messages.

    Raises:
        InputError: if there is no such set, or it cannot be read, or it holds no rows.
    """

    def __init__(
        self, names: Sequence[str], data_dir: Path | None, limit: int | None, *, flag: str = "--train"
    ) -> None:
        if not names:
            raise InputError(f"{flag} is empty; name a set or a file.")
        if limit is not None and limit < 1:
            raise InputError(f"a limit of {limit} rows leaves nothing of {flag}; give a positive number.")
        self._sets = tuple(find_set(name, data_dir, flag) for name in dict.fromkeys(names))
        self._limit, self._flag = limit, flag
        self._made: dict[tuple[OfferedSet, Reads], TrainRows] = {}

    def rows(self, wanted: Sequence[Reads], *, reader: str = "the objective") -> TrainRows:
        """The rows that suit a reader best: equal demands give the same object.

        The kinds are gone through, the best first, and for each the sets in their order: what a set holds as it is
        wins, whatever the set's place, over what has to be made of others: pairs of triplets (without their
        negatives), sentences of pairs or triplets. Scored pairs are never taken apart, for some are unlike.

        Args:
            wanted: the kinds that will do, the best first.
            reader: who reads them, for messages.

        Raises:
            InputError: if no set has such rows; it says what each has.
        """
        changes: tuple[Callable[[Offer, Reads], Offer | None], ...] = (_as_it_is, _converted)
        for change in changes:
            for kind in wanted:
                for one, offer in self._offers():
                    if (chosen := change(offer, kind)) is not None:
                        return self._rows(one, chosen)
        held = " and ".join(f"{one.name} holds {_holdings(one)}" for one in self._sets)
        raise InputError(f"{self._flag} {held}, but {reader} reads {' or '.join(wanted)}; name a set of such rows.")

    def _offers(self) -> Iterator[tuple[OfferedSet, Offer]]:
        return ((one, offer) for one in self._sets for offer in one.offers)

    def _rows(self, one: OfferedSet, chosen: Offer) -> TrainRows:
        key = (one, chosen.kind)
        if key not in self._made:
            self._made[key] = _build(one, chosen, self._limit, f"{self._flag} {one.name}")
        return self._made[key]


def _as_it_is(offer: Offer, kind: Reads) -> Offer | None:
    return offer if offer.kind == kind else None


def _converted(offer: Offer, kind: Reads) -> Offer | None:
    if kind == "pairs" and offer.kind == "triplets":
        return Offer("pairs", [row[:2] for row in offer.rows])
    if kind == "sentences" and offer.kind in ("pairs", "triplets"):
        return sentences(chain.from_iterable(offer.rows))
    return None


def _holdings(one: OfferedSet) -> str:
    kinds = " or ".join(dict.fromkeys(offer.kind for offer in one.offers))
    return kinds + "".join(f" ({note})" for note in dict.fromkeys(offer.note for offer in one.offers) if note)


def _build(one: OfferedSet, chosen: Offer, limit: int | None, asked: str) -> TrainRows:
    labels = scale = None
    if chosen.scores is not None:
        low, high = scale = one.scale or _scale(asked, chosen.scores)
        labels = tuple((score - low) / (high - low) for score in chosen.scores)[:limit]
        if not all(0 <= label <= 1 for label in labels):
            raise InputError(f"{asked}: a score lies outside of {low:g} to {high:g}; correct it.")
    columns = tuple(zip(*chosen.rows[:limit], strict=True))
    return TrainRows(
        _spec(one.name, chosen.kind, columns, labels), columns, labels, scale, one.source, one.known_leaks
    )


def _spec(
    name: str, kind: Reads, columns: tuple[tuple[str, ...], ...], labels: tuple[float, ...] | None
) -> RowSetSpec:
    digest = hashlib.sha256(json.dumps([kind, columns, labels]).encode()).hexdigest()
    return RowSetSpec(name=name, sha256=digest, count=len(columns[0]), kind=kind)


def _scale(asked: str, scores: Sequence[float]) -> tuple[float, float]:
    """0 to 1 if all scores lie there, else from the lowest to the highest."""
    low, high = min(scores), max(scores)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low == high:
        raise InputError(f"{asked}: all scores are {low:g}, so they have no scale; give rows with several scores.")
    return low, high
