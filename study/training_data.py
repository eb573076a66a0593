"""The rows that learned methods are trained on: embedded, by name, from a data folder, or from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusebench.benchmarks.record import TextSetSpec
from fusebench.errors import InputError
from fusebench.study.row_files import Offer, read_file, read_place, rows_of, sentences

if TYPE_CHECKING:
    from fusebench.methods.parts import Reads

DEFAULT = "lee-background"


@dataclass(frozen=True)
class TrainRows:
    """Rows of one kind, column by column, and what identifies them.

    Attributes:
        spec: `count` is the number of rows; the hash covers kind, texts and labels.
        kind: of the rows.
        columns: one tuple of texts a column: sentences 1, pairs 2, triplets 3 (anchor, positive, negative).
        labels: of scored pairs, in [0, 1].
        scale: the lowest and highest score that became labels 0 and 1.
        source: where the rows came from, for people.
    """

    spec: TextSetSpec
    kind: Reads
    columns: tuple[tuple[str, ...], ...]
    labels: tuple[float, ...] | None
    scale: tuple[float, float] | None
    source: str

    def groups(self) -> tuple[int, ...]:
        """A number for each row; equal numbers mean equal first texts."""
        numbers: dict[str, int] = {}
        return tuple(numbers.setdefault(text, len(numbers)) for text in self.columns[0])


@dataclass(frozen=True)
class _Named:
    """A set with a name: its place below the data folder, and how to get it without one."""

    local: str
    hub: Callable[[], list[Offer]] | None
    hub_name: str = ""
    scale: tuple[float, float] | None = None


def load_rows(what: str, data_dir: Path | None, limit: int | None, wanted: tuple[Reads, ...]) -> TrainRows:
    """Training rows by name or file, of a kind that an objective reads.

    Args:
        what: `lee-background` (embedded: sentences of articles that no task uses, or pairs of neighbours among
            them), `nli`, `stsb-train`, `wiki1m`, `flickr30k` (below `data_dir`, else from the hub where it has
            them), a folder or file below `<data_dir>/train`, or a file: TXT (one sentence a line), JSONL, CSV or
            TSV, each also gzipped. One column of texts makes sentences, two make pairs, three triplets, two and a
            numeric `score` (or `label`) scored pairs, a list of texts a group, whose members make pairs.
        data_dir: where named sets lie.
        limit: keep the first rows of that kind; None keeps all.
        wanted: the kinds that will do, the best first. Rows of another kind are used as one of these where that
            is safe: triplets as pairs (without their negatives) or sentences, pairs as sentences.

    Raises:
        InputError: if there is no such set, it cannot be read, or it has rows of other kinds only.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} leaves nothing to train on: give a positive number.")
    offers, source, scale = _find(what, data_dir)
    chosen = _choose(what, offers, wanted)
    if not chosen.rows:
        raise InputError(f"--train {what} holds no rows.")
    labels = None
    if chosen.scores is not None:
        scale = scale or _scale(what, chosen.scores)
        labels = tuple((score - scale[0]) / (scale[1] - scale[0]) for score in chosen.scores)[:limit]
        if not all(0 <= label <= 1 for label in labels):
            raise InputError(f"--train {what}: a score lies outside of {scale[0]:g} to {scale[1]:g}.")
    columns = tuple(zip(*chosen.rows[:limit], strict=True))
    digest = hashlib.sha256(json.dumps([chosen.kind, columns, labels]).encode()).hexdigest()
    spec = TextSetSpec(name=_display_name(what), sha256=digest, count=len(columns[0]))
    return TrainRows(spec, chosen.kind, columns, labels, scale if labels is not None else None, source)


def _display_name(what: str) -> str:
    return what if what in _NAMED else Path(what).name


def _find(what: str, data_dir: Path | None) -> tuple[list[Offer], str, tuple[float, float] | None]:
    if what == DEFAULT:
        return _lee_background(), "embedded", None
    if what in _NAMED:
        named = _NAMED[what]
        place = data_dir / named.local if data_dir else None
        if place is not None and place.exists():
            return read_place(what, place), named.local, named.scale
        if named.hub is None:
            raise InputError(f"--train {what}: put it into {named.local} below --data-dir; the hub does not have it.")
        return _download(what, named), f"hub: {named.hub_name}", named.scale
    places = [Path(what).expanduser(), *([data_dir / "train" / what] if data_dir else [])]
    for place in places:
        if place.exists():
            return read_place(what, place), Path(what).name, None
    tried = " or ".join(str(place) for place in places)
    raise InputError(f"--train {what}: no such set ({tried}); by name there are {', '.join([DEFAULT, *_NAMED])}.")


def _choose(what: str, offers: Sequence[Offer], wanted: tuple[Reads, ...]) -> Offer:
    """The first wanted kind that is there as it is, else the first that can be made."""
    for change in (lambda offer, kind: offer if offer.kind == kind else None, _converted):
        for kind in wanted:
            for offer in offers:
                found: Offer | None = change(offer, kind)
                if found is not None:
                    return found
    held = " or ".join(dict.fromkeys(offer.kind for offer in offers))
    notes = "".join(f" ({note})" for note in dict.fromkeys(offer.note for offer in offers) if note)
    raise InputError(f"--train {what} holds {held}{notes}, but the objective reads {' or '.join(wanted)}.")


def _converted(offer: Offer, kind: Reads) -> Offer | None:
    if kind == "pairs" and offer.kind == "triplets":
        return Offer("pairs", [row[:2] for row in offer.rows])
    if kind == "sentences" and offer.kind in ("pairs", "triplets"):
        return sentences(chain.from_iterable(offer.rows))
    return None


def _scale(what: str, scores: Sequence[float]) -> tuple[float, float]:
    """0 to 1 if all scores lie there, else from the lowest to the highest."""
    low, high = min(scores), max(scores)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low == high:
        raise InputError(f"--train {what}: all scores are {low:g}, so they have no scale.")
    return low, high


def _lee_background() -> list[Offer]:
    """Sentences; and pairs of neighbours in an article, no sentence in two of them."""
    from fusebench.benchmarks.embedded import fit_articles, fit_sentences

    used: set[str] = set()
    pairs: list[tuple[str, ...]] = []
    for article in fit_articles():
        for pair in pairwise(article):
            if not used & set(pair) and pair[0] != pair[1]:
                used.update(pair)
                pairs.append(pair)
    return [sentences(fit_sentences()), Offer("pairs", pairs)]


def _download(what: str, named: _Named) -> list[Offer]:
    assert named.hub is not None
    try:
        return named.hub()
    except Exception as error:  # the hub's clients raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--train {what}: {named.hub_name} cannot be had from the hub ({type(error).__name__}: {reason}); "
            f"put the rows into {named.local} below --data-dir."
        ) from error


def _hub_table(path: str, config: str | None, columns: Sequence[str]) -> list[Any]:
    import datasets

    table = datasets.load_dataset(path, config, split="train").select_columns(list(columns))
    return list(table.to_list())


def _hub_nli() -> list[Offer]:
    columns = ("anchor", "positive", "negative")
    return rows_of("all-nli", _hub_table("sentence-transformers/all-nli", "triplet", columns))


def _hub_stsb() -> list[Offer]:
    return rows_of("stsbenchmark-sts", _hub_table("mteb/stsbenchmark-sts", None, ("sentence1", "sentence2", "score")))


def _hub_wiki1m() -> list[Offer]:
    from huggingface_hub import hf_hub_download

    repo = "princeton-nlp/datasets-for-simcse"
    return read_file(Path(hf_hub_download(repo, "wiki1m_for_simcse.txt", repo_type="dataset")))


_NAMED = {
    "nli": _Named("train/SNLI-dev-test/triplets.csv", _hub_nli, "sentence-transformers/all-nli, triplet"),
    "stsb-train": _Named("STSBenchmark/train.jsonl", _hub_stsb, "mteb/stsbenchmark-sts, train", (0.0, 5.0)),
    "wiki1m": _Named("train/wikipedia-sentences", _hub_wiki1m, "princeton-nlp/datasets-for-simcse"),
    "flickr30k": _Named("train/Flickr30k-captions", None),
}
