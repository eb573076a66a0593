"""What is known of another study's evaluation protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from fusebench.benchmarks.pair_parts import Aggregation


@dataclass(frozen=True)
class Published:
    """A row that the study, or a named reader of it, printed.

    Attributes:
        weights: the last part of their hub name.
        method: as a sentence of ours.
        scores: in percent, by column of the protocol's table.
        source: where it stands.
    """

    weights: str
    method: str
    scores: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Protocol:
    """How a study evaluates.

    Attributes:
        name: what `--protocol` takes.
        about: one line for `list protocols`.
        source: repository, the commit or file version that was read, and paper.
        tasks: in the order of its table.
        aggregation: of STS12 to STS16 over their sub-corpora.
        sick: which pairs of SICK count: SemEval's test part, or all as in mteb.
        methods: sentences of ours for what it evaluates.
        layers: which states are read; 0 is the embedding output, L the last.
        pooling: over tokens, and which tokens count.
        text: form of the texts.
        length: where texts are cut.
        average: what its average is called; None: it prints none, or one over more than these tasks.
        fit: what transforms are fitted on; such texts must then be named by `--fit`.
        settings: values of flags, by the parser's names, where the user gives none.
        departures: what is done differently here.
        unconfirmed: what no source that was read says.
        published: rows to compare with.
    """

    name: str
    about: str
    source: str
    tasks: tuple[str, ...]
    aggregation: Aggregation
    sick: Literal["SemEval test", "all"]
    methods: tuple[str, ...]
    layers: str
    pooling: str
    text: str
    length: str
    average: str | None
    fit: str | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    departures: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
