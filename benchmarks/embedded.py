"""Two tasks that need no download: the installed package gensim carries their Lee news articles."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from fusebench.errors import InputError

EMBEDDED_TASKS = ("LeeSTS", "LeeKnownItem")

_SHA256 = {
    "lee.cor": "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
    "similarities0-1.txt": "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
    "lee_background.cor": "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
}
_EVALUATED = 150  # articles before this number are judged, the others are free to fit and train on
_REFERENCE = "https://escholarship.org/uc/item/48g155nq"
_BIBTEX = """@inproceedings{lee2005empirical,
  author = {Lee, Michael D. and Pincombe, Brandon and Welsh, Matthew},
  title = {An empirical evaluation of models of text document similarity},
  booktitle = {Proceedings of the 27th Annual Conference of the Cognitive Science Society},
  pages = {1254--1259},
  year = {2005},
}"""

# A sentence ends in . ! or ?, perhaps inside a quotation, before a space and a capital, digit or quote.
_BORDER = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]["')]))\s+(?=["'(]*[A-Z0-9])""")
_ABBREVIATION = re.compile(
    r"(?:^|[\s\"'(])(?:[A-Z]|Mrs?|Ms|Dr|Prof|St|Sen|Rep|Gen|Lt|Sgt|Col|Capt|Rev|No|vs|\w(?:\.\w)+)\.$"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text; a full stop after an initial, a title or "a.m." ends none."""
    found: list[str] = []
    for piece in _BORDER.split(" ".join(text.split())):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {piece}"
        elif piece:
            found.append(piece)
    return found


@functools.cache
def _read(name: str) -> str:
    # find_spec does not run gensim, whose import takes a second
    spec = importlib.util.find_spec("gensim")
    if spec is None or spec.origin is None:
        raise InputError("the package gensim, which carries the Lee articles, is missing: pip install gensim")
    path = Path(spec.origin).parent / "test" / "test_data" / name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256[name]:
        raise InputError(
            f"gensim's file {name} is missing or not the one expected: "
            "reinstall gensim (pip install --force-reinstall --no-deps gensim)"
        )
    # not UTF-8: the background articles hold one Latin-1 pound sign
    return path.read_bytes().decode("latin-1")


def _articles() -> list[list[str]]:
    return [sentences(line) for line in _read("lee_background.cor").split("\n")]


def _key(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def known_items() -> dict[int, tuple[str, str]]:
    """Query (first sentence) and document (the rest) of each judged article, by its number.

    Of the 150 articles, 145 remain. Three (112, 119, 120) repeat an earlier one word for word, and two
    (72, 107) repeat most of an earlier one, so their query has two right answers: an article is left out when
    its first or second sentence stands in an earlier article. None has a single sentence; it would be left
    out too.
    """
    seen: set[str] = set()
    items: dict[int, tuple[str, str]] = {}
    for number, article in enumerate(_articles()[:_EVALUATED]):
        if len(article) > 1 and not seen & {_key(sentence) for sentence in article[:2]}:
            items[number] = article[0], " ".join(article[1:])
        seen.update(map(_key, article))
    return items


def fit_articles() -> list[list[str]]:
    """The sentences of each article that is free to fit and train on, duplicates left out.

    No article, nor any sentence, stands on both sides of the border or in `LeeSTS`; one that did would
    be left out. Articles 156, 236, 271 and 288 are left out: they repeat 150, 230, 263 and 281.
    """
    articles = _articles()
    judged = {_key(sentence) for article in articles[:_EVALUATED] for sentence in article}
    judged |= {_key(sentence) for document in documents() for sentence in sentences(document)}
    distinct = dict.fromkeys(tuple(article) for article in articles[_EVALUATED:])
    return [[sentence for sentence in article if _key(sentence) not in judged] for article in distinct]


def fit_sentences() -> list[str]:
    """The distinct sentences of `fit_articles`, in order."""
    return list(dict.fromkeys(sentence for article in fit_articles() for sentence in article))


def documents() -> list[str]:
    """The 50 short documents of `LeeSTS`."""
    return _read("lee.cor").split("\n")


def document_pairs() -> tuple[list[str], list[str], list[float]]:
    """The 1225 pairs i < j of the 50 documents and their mean human similarity, 0 to 1."""
    texts = documents()
    human = [[float(cell) for cell in row.split()] for row in _read("similarities0-1.txt").splitlines()]
    pairs = [(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts))]
    return [texts[i] for i, _ in pairs], [texts[j] for _, j in pairs], [human[i][j] for i, j in pairs]


def _revision(*names: str) -> str:
    return "sha256:" + hashlib.sha256("".join(_SHA256[name] for name in names).encode()).hexdigest()


def _metadata(name: str, description: str, task_type: Any, main_score: str, revision: str) -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name,
        description=description,
        reference=_REFERENCE,
        bibtex_citation=_BIBTEX,
        dataset={"path": "gensim", "revision": revision},
        type=task_type,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )


@functools.cache
def _sts_class() -> Any:
    from mteb.abstasks import AbsTaskSTS

    class LeeSTS(AbsTaskSTS):
        """All pairs of the 50 documents."""

        min_score, max_score = 0, 1
        metadata = _metadata(
            "LeeSTS",
            "All 1225 pairs of 50 news documents of 51 to 126 words, judged by about ten readers each.",
            "STS",
            "cosine_spearman",
            _revision("lee.cor", "similarities0-1.txt"),
        )

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            """Builds the data set from the installed files."""
            from datasets import Dataset

            columns = dict(zip(("sentence1", "sentence2", "score"), document_pairs(), strict=True))
            self.dataset = {"default": {"test": Dataset.from_dict(columns)}}
            self.data_loaded = True

    return LeeSTS


@functools.cache
def _known_item_class() -> Any:
    from mteb.abstasks import AbsTaskRetrieval

    class LeeKnownItem(AbsTaskRetrieval):
        """The first sentence of an article has to find the rest of it."""

        metadata = _metadata(
            "LeeKnownItem",
            "The first sentence of a news article has to find the rest of the article among 145.",
            "Retrieval",
            "ndcg_at_10",
            _revision("lee_background.cor"),
        )

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            """Builds queries, corpus and judgements from the installed files."""
            from datasets import Dataset

            items = known_items()
            ids = [str(number) for number in items]
            queries, texts = zip(*items.values(), strict=True)
            split: Any = {
                "corpus": Dataset.from_dict({"id": ids, "text": list(texts)}),
                "queries": Dataset.from_dict({"id": ids, "text": list(queries)}),
                "relevant_docs": {number: {number: 1} for number in ids},
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return LeeKnownItem


def embedded_task(name: str) -> Any:
    """A fresh mteb task object of one of `EMBEDDED_TASKS`, its data not yet loaded."""
    return {"LeeSTS": _sts_class, "LeeKnownItem": _known_item_class}[name]()()
