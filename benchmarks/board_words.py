"""How boards write counts, lists, spans and sets of texts."""

from __future__ import annotations

from collections.abc import Iterable

from fusebench.benchmarks.record import RowSetSpec, TextSetSpec


def counted(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(values: Iterable[object]) -> str:
    """The distinct values, numbers before words, each in order."""
    return ", ".join(_written(v) for v in sorted(set(values), key=lambda v: (isinstance(v, str), v)))


def span(values: Iterable[int]) -> str:
    """`3`, or `3-5` where the values differ."""
    low, high = min(held := set(values)), max(held)
    return str(low) if low == high else f"{low}-{high}"


def text_set(spec: TextSetSpec) -> str:
    """Name, size and the start of the hash: `nli (3 triplets, 0a1b2c3d)`."""
    kind = spec.kind if isinstance(spec, RowSetSpec) else "text" if spec.count == 1 else "texts"
    return f"{spec.name} ({spec.count} {kind}, {spec.sha256[:8]})"


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
