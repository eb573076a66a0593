"""Where sets of training and dev rows are found: embedded, by name, in the data folder, in a file, on the hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fusebench.errors import InputError
from fusebench.study.row_files import Offer, read_file, read_place, rows_of, sentences

DEFAULT = "lee-background"

# STS-B was put together from pairs of these years, so nobody's STS-B training rows are free of them.
_EARLIER_YEARS = ("STS12", "STS13", "STS14", "STS15", "STS16")


@dataclass(frozen=True, eq=False)
class OfferedSet:
    """A set of rows as each kind that it can give.

    Attributes:
        name: for records; never a path.
        offers: not empty, and none without rows.
        source: where the rows came from, for people.
        scale: the scores that become labels 0 and 1; None: the rows tell.
        known_leaks: tasks whose test pairs the set is known to hold, as published.
    """

    name: str
    offers: tuple[Offer, ...]
    source: str
    scale: tuple[float, float] | None = None
    known_leaks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Named:
    """A set with a name: its place below the data folder, and how to get it without one."""

    local: str
    hub: Callable[[], list[Offer]] | None
    hub_name: str = ""
    scale: tuple[float, float] | None = None
    known_leaks: tuple[str, ...] = ()


def find_set(name: str, data_dir: Path | None, flag: str) -> OfferedSet:
    """The rows of a named set, a folder or a file.

    Args:
        name: one of `set_names()`, a folder or file below `<data_dir>/train`, or a folder or file.
        data_dir: where named sets lie.
        flag: what the user gave the name with, for messages.

    Raises:
        InputError: if there is no such set, it cannot be read, or it holds no rows.
    """
    asked = f"{flag} {name}"
    if not name.strip():
        raise InputError(f"{flag} is empty; name a set or a file, such as {DEFAULT}.")
    found = _named(name, data_dir, asked) if name in _NAMED else _elsewhere(name, data_dir, asked)
    offers = tuple(offer for offer in found.offers if offer.rows)
    if not offers:
        raise InputError(f"{asked} holds no rows; give another file.")
    return OfferedSet(found.name, offers, found.source, found.scale, found.known_leaks)


def set_names() -> tuple[str, ...]:
    """The names that need no file of one's own."""
    return (DEFAULT, *_NAMED)


def _elsewhere(name: str, data_dir: Path | None, asked: str) -> OfferedSet:
    if name == DEFAULT:
        return OfferedSet(name, tuple(_lee_background()), "embedded")
    places = [Path(name).expanduser(), *([data_dir / "train" / name] if data_dir else [])]
    for place in places:
        try:
            there = place.exists()
        except OSError as error:  # such as a name that is too long
            raise InputError(f"{asked} cannot be looked up ({error.strerror}); give another path.") from error
        if there:
            shown = place.resolve().name
            return OfferedSet(shown, tuple(read_place(asked, place)), shown)
    tried = " or ".join(str(place) for place in places)
    raise InputError(f"{asked}: no such set ({tried}); by name there are {', '.join(set_names())}.")


def _named(name: str, data_dir: Path | None, asked: str) -> OfferedSet:
    named = _NAMED[name]
    place = data_dir / named.local if data_dir else None
    if place is not None and place.exists():
        offers, source = read_place(asked, place), named.local
    elif named.hub is None:
        raise InputError(f"{asked}: put it into {named.local} below --data-dir; the hub does not have it.")
    else:
        offers, source = _download(asked, named, named.hub), f"hub: {named.hub_name}"
    return OfferedSet(name, tuple(offers), source, named.scale, named.known_leaks)


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


def _download(asked: str, named: _Named, hub: Callable[[], list[Offer]]) -> list[Offer]:
    try:
        return hub()
    except Exception as error:  # the hub's clients raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{asked}: {named.hub_name} cannot be had from the hub ({type(error).__name__}: {reason}); "
            f"put the rows into {named.local} below --data-dir."
        ) from error


def _hub_table(path: str, config: str | None, split: str, columns: Sequence[str]) -> list[Any]:
    import datasets

    table = datasets.load_dataset(path, config, split=split).select_columns(list(columns))
    return list(table.to_list())


def _hub_nli() -> list[Offer]:
    columns = ("anchor", "positive", "negative")
    return rows_of("all-nli", _hub_table("sentence-transformers/all-nli", "triplet", "train", columns))


def _hub_stsb(split: str) -> list[Offer]:
    columns = ("sentence1", "sentence2", "score")
    return rows_of("stsbenchmark-sts", _hub_table("mteb/stsbenchmark-sts", None, split, columns))


def _hub_wiki1m() -> list[Offer]:
    from huggingface_hub import hf_hub_download

    repo = "princeton-nlp/datasets-for-simcse"
    return read_file(Path(hf_hub_download(repo, "wiki1m_for_simcse.txt", repo_type="dataset")))


def _stsb(local: str, split: str) -> _Named:
    hub_name = f"mteb/stsbenchmark-sts, {split}"
    return _Named(f"STSBenchmark/{local}", lambda: _hub_stsb(split), hub_name, (0.0, 5.0), _EARLIER_YEARS)


_NAMED = {
    "nli": _Named("train/SNLI-dev-test/triplets.csv", _hub_nli, "sentence-transformers/all-nli, triplet"),
    "stsb-train": _stsb("train.jsonl", "train"),
    "stsb-dev": _stsb("validation.jsonl", "validation"),
    "wiki1m": _Named("train/wikipedia-sentences", _hub_wiki1m, "princeton-nlp/datasets-for-simcse"),
    "flickr30k": _Named("train/Flickr30k-captions", None),
}
