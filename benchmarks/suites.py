"""Named lists of tasks, written out so that a suite never changes with the version of mteb."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from fusebench.errors import InputError


@dataclass(frozen=True)
class Suite:
    """A named list of tasks.

    Attributes:
        name: What `--suite` takes.
        summary: One line for `list suites`.
        tasks: Names of tasks, in the order they are run and shown.
    """

    name: str
    summary: str
    tasks: tuple[str, ...]


_NANO_SOURCES = (
    "ArguAna",
    "ClimateFever",
    "DBPedia",
    "FEVER",
    "FiQA2018",
    "HotpotQA",
    "MSMARCO",
    "NFCorpus",
    "NQ",
    "Quora",
    "SCIDOCS",
    "SciFact",
    "Touche2020",
)

_ALL = (
    Suite("embedded", "two small tasks that need no download", ("LeeSTS", "LeeKnownItem")),
    Suite(
        "mteb-sts",
        "the eight English STS tasks that papers report",
        ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R", "BIOSSES"),
    ),
    Suite("mteb-retrieval", "three small BEIR tasks", ("SciFact", "NFCorpus", "ArguAna")),
    Suite(
        "nano-beir",
        "mteb's NanoBEIR: 13 retrieval tasks of about 50 queries",
        tuple(f"Nano{source}Retrieval" for source in _NANO_SOURCES),
    ),
    Suite(
        "mteb-eng-v2",
        "the STS and retrieval tasks of mteb's MTEB(eng, v2)",
        (
            "BIOSSES",
            "SICK-R",
            "STS12",
            "STS13",
            "STS14",
            "STS15",
            "STS17",
            "STS22.v2",
            "STSBenchmark",
            "ArguAna",
            "CQADupstackGamingRetrieval",
            "CQADupstackUnixRetrieval",
            "ClimateFEVERHardNegatives",
            "FEVERHardNegatives",
            "FiQA2018",
            "HotpotQAHardNegatives",
            "SCIDOCS",
            "TRECCOVID",
            "Touche2020Retrieval.v3",
        ),
    ),
)

SUITES: dict[str, Suite] = {entry.name: entry for entry in _ALL}


def suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        InputError: No suite has that name; the message suggests the nearest ones.
    """
    if name in SUITES:
        return SUITES[name]
    near = difflib.get_close_matches(name, SUITES, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(SUITES)}."
    raise InputError(f"no suite {name!r}. {hint}")
