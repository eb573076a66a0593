"""A drawing of the chain from texts to scores, with the place where a kind of part acts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from fusebench.methods.registry import Kind

_CHAIN = ("rows", "backbone", "states", "fusion", "vectors", "transform", "tasks")
_UNDER: dict[str, int] = {"sampler": 0, "guide": 1, "objective": 4}  # what acts in training, and on what

_BOX, _GAP, _TOP = 68, 12, 12


def figure(kind: Kind) -> str:
    """The drawing as SVG without an empty line, so that it can stand in Markdown.

    Raises:
        ValueError: if there is no such kind.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"no kind of part is called '{kind}'")
    return "\n".join(
        [
            '<svg class="figure" viewBox="0 0 560 108" role="img">',
            f"<title>Where a part of the kind {kind} acts</title>",
            *(line for place, name in enumerate(_CHAIN) for line in _link(place, name, kind)),
            *(line for name, place in _UNDER.items() for line in _below(place, name, kind)),
            "</svg>",
        ]
    )


def _link(place: int, name: str, kind: Kind) -> Iterator[str]:
    x = 4 + place * (_BOX + _GAP)
    yield from _box(x, _TOP, name, here=name == kind)
    if place:
        yield f'<path d="M{x - _GAP} {_TOP + 16} L{x} {_TOP + 16}" class="line"/>'


def _below(place: int, name: str, kind: Kind) -> Iterator[str]:
    x = 4 + place * (_BOX + _GAP)
    yield from _box(x, _TOP + 60, name, here=name == kind)
    yield f'<path d="M{x + _BOX // 2} {_TOP + 32} L{x + _BOX // 2} {_TOP + 60}" class="line dashed"/>'


def _box(x: int, y: int, name: str, *, here: bool) -> Iterator[str]:
    kind = "here" if here else "box"
    yield f'<rect x="{x}" y="{y}" width="{_BOX}" height="32" rx="6" class="{kind}"/>'
    yield f'<text x="{x + _BOX // 2}" y="{y + 20}" class="token{" on" if here else ""}">{name}</text>'
