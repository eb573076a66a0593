"""A drawing of what a fusion reads, found by asking it: which tokens of which layers move its vector."""

from __future__ import annotations

import html
from collections.abc import Iterator

import torch
from jaxtyping import Bool

from fusebench.methods.parts import Fusion
from fusebench.methods.registry import Card
from fusebench.methods.states import LayerStates, Needs, StateShape

SHAPE = StateShape(blocks=6, dim=64)
TOKENS = ("[CLS]", "one", "small", "text", "[SEP]")
_MARKER = 3  # where a template's mask token stands

_CELL, _GAP, _LEFT, _TOP = 34, 4, 92, 12
_WIDTH, _HEIGHT = 560, _TOP + SHAPE.states * (22 + _GAP) + 30
_ROW = 22


def moved_by(fusion: Fusion) -> Bool[torch.Tensor, "states tokens"]:
    """Whether each token of each state has a gradient; weights are disturbed, so that none hides behind a 0."""
    generator = torch.Generator().manual_seed(0)
    size = (1, len(TOKENS), SHAPE.dim)
    hidden = [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(SHAPE.states)]
    leaves = [state.requires_grad_() for state in hidden]
    mask = torch.ones(1, len(TOKENS), dtype=torch.bool)
    marker = torch.tensor([_MARKER]) if Needs.MARKER in fusion.needs else None
    fusion = fusion.double().eval()
    for weight in fusion.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    vector = fusion(LayerStates(tuple(leaves), mask, None, marker))
    weighting = torch.randn(vector.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad((vector * weighting).sum(), leaves, allow_unused=True)
    unread = torch.zeros(size)
    return torch.stack([(unread if found is None else found)[0].abs().sum(dim=1) > 0 for found in gradients])


def width_in_words(card: Card) -> str:
    """How wide the vector is: `d`, a multiple of it, or a number."""
    narrow, wide = (int(card.part(StateShape(SHAPE.blocks, dim)).out_dim) for dim in (SHAPE.dim, 2 * SHAPE.dim))
    if narrow == wide:
        return f"{narrow} wide"
    factor = narrow / SHAPE.dim
    return "d wide" if factor == 1 else f"{factor:g} d wide"


def figure(card: Card) -> str:
    """The drawing as SVG without an empty line, so that it can stand in Markdown."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        fusion: Fusion = card.part(SHAPE)
    return "\n".join(
        [
            f'<svg class="figure" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
            f"<title>What {html.escape(card.name)} reads: tokens from left to right, layers from below</title>",
            *_grid(moved_by(fusion), template=fusion.template is not None),
            *_pooled(fusion),
            *_vector(card),
            "</svg>",
        ]
    )


def _y(layer: int) -> int:
    return _TOP + (SHAPE.blocks - layer) * (_ROW + _GAP)


def _grid(moved: Bool[torch.Tensor, "states tokens"], *, template: bool) -> Iterator[str]:
    for layer in range(SHAPE.states):
        name = "embeddings" if layer == 0 else f"layer {layer}"
        yield f'<text x="{_LEFT - 10}" y="{_y(layer) + 15}" class="end">{name}</text>'
        for place in range(len(TOKENS)):
            kind = "read" if moved[layer, place] else "unread"
            x = _LEFT + place * (_CELL + _GAP)
            yield f'<rect x="{x}" y="{_y(layer)}" width="{_CELL}" height="{_ROW}" rx="3" class="{kind}"/>'
    for place, token in enumerate(TOKENS):
        word = "[MASK]" if template and place == _MARKER else token
        x = _LEFT + place * (_CELL + _GAP) + _CELL // 2
        yield f'<text x="{x}" y="{_HEIGHT - 14}" class="token">{word}</text>'


def _pooled(fusion: Fusion) -> Iterator[str]:
    """What of each layer goes on: the mean over its tokens, its first token, or the tokens themselves."""
    right = _LEFT + len(TOKENS) * (_CELL + _GAP)
    read = [kind for kind in (Needs.FIRSTS, Needs.MEANS) if kind in fusion.needs]
    words = {Needs.FIRSTS: "first", Needs.MEANS: "mean"}
    end = right + 40 * max(1, len(read)) + 4
    for layer in fusion.layers:
        for number, kind in enumerate(read):
            x = right + 4 + 40 * number
            yield f'<rect x="{x}" y="{_y(layer) + 2}" width="36" height="{_ROW - 4}" rx="9" class="pooled"/>'
            yield f'<text x="{x + 18}" y="{_y(layer) + 15}" class="small">{words[kind]}</text>'
        start = end if read else right
        yield f'<path d="M{start} {_y(layer) + 11} L{_BOX - 2} {_MIDDLE}" class="line"/>'


_BOX, _MIDDLE = 392, _TOP + SHAPE.states * (_ROW + _GAP) // 2


def _vector(card: Card) -> Iterator[str]:
    name = html.escape(card.name)
    size = 11 if len(card.name) < 14 else 9
    yield f'<rect x="{_BOX}" y="{_MIDDLE - 20}" width="104" height="40" rx="6" class="box"/>'
    yield f'<text x="{_BOX + 52}" y="{_MIDDLE + 4}" class="token" style="font-size:{size}px">{name}</text>'
    yield f'<path d="M{_BOX + 104} {_MIDDLE} L{_BOX + 124} {_MIDDLE}" class="line"/>'
    for part in range(8):
        y = _MIDDLE - 64 + part * 16
        yield f'<rect x="{_BOX + 128}" y="{y}" width="16" height="14" rx="2" class="read"/>'
    yield f'<text x="{_BOX + 136}" y="{_MIDDLE + 80}" class="token">{width_in_words(card)}</text>'
