"""The contract that every part keeps, as one call: for parts of one's own as for those that come along.

    from fusebench.testing import check_fusion

    def test_my_fusion_keeps_the_contract():
        check_fusion("my-fusion", layer=3)

Each check builds small made-up states, runs the part, and raises AssertionError with the promise that is broken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

import fusebench.methods
from fusebench.methods.parts import Fusion, Guide, Transform
from fusebench.methods.registry import card
from fusebench.methods.states import LayerStates, Needs, PooledStates, StateShape

_ = fusebench.methods  # importing it registers the parts

SHAPE = StateShape(blocks=6, dim=16)
HEADS = 2
LENGTHS = (5, 1, 3, 8, 2)  # tokens of the made-up texts; one of them has a single token

Side = Literal["left", "right"]


@dataclass(frozen=True)
class _Text:
    """What a backbone would leave of one text, without padding."""

    hidden: Tensor  # [states, tokens, dim]
    attention: Tensor  # [blocks, heads, tokens, tokens]
    marker: int


def check_fusion(fusion: type[Fusion] | str, /, **params: Any) -> None:
    """Asserts that a fusion keeps the contract on a backbone of 6 blocks and 16 dimensions.

    Shape and dtype; truthful `layers`, `needs` and `out_dim`; padding invisible; rows do not talk; order of rows
    irrelevant; input untouched; deterministic; finite; bfloat16 close to float32; gradients right and reaching
    every declared state and every weight; weights saved and loaded.

    Args:
        fusion: the class or its registered name.
        params: its hyper-parameters.
    """
    kind = _class(fusion, Fusion)

    def new() -> Fusion:
        built: Fusion = kind(SHAPE, **params)
        return built.eval()

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        part = new()
        texts = _texts(LENGTHS)
        _check_declarations(part)
        vectors = _check_vectors(part, texts)
        _check_padding_and_rows(lambda states: part(states), part.needs, texts, vectors)
        _check_layers_are_truthful(part, texts, vectors)
        if part.needs.pooled:
            _check_pooled_states_are_enough(part, texts, vectors)
        _check_bfloat16(part, texts)
        _check_gradients(part, texts)
        _check_weights_round_trip(part, new(), texts, vectors)


def check_guide(guide: type[Guide] | str, /, **params: Any) -> None:
    """Asserts that a guide keeps the contract: a finite scalar, the mean over rows, blind to padding, with gradients.

    The attention maps are those of a backbone in training: softmaxed, then dropped out.

    Args:
        guide: the class or its registered name.
        params: its hyper-parameters.
    """
    part = _class(guide, Guide)(**params)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        texts = _texts(LENGTHS)
        states = _batch(texts, part.needs)
        value = part(states)
        _require(value.shape == (), f"a guide returns a scalar, not shape {tuple(value.shape)}")
        _require(bool(value.isfinite()), f"a guide is finite, not {value}")
        _check_input_untouched(part, texts, part.needs)
        _require(torch.equal(part(states), value), "a guide is deterministic")
        for side, garbage in _PADDINGS:
            padded = part(_batch(texts, part.needs, side=side, garbage=garbage))
            _close(padded, value, f"padding is invisible ({side}, filled with about {garbage:g})")
        alone = torch.stack([part(_batch([text], part.needs, spare=0)) for text in texts])
        _close(alone.mean(), value, "a guide is the mean over the rows, each as if alone")
        if Needs.ATTENTION in part.needs:
            _check_missing_maps_are_refused(part, states)
        _check_guide_gradients(part, texts)


def check_transform(transform: type[Transform] | str, /, **params: Any) -> None:
    """Asserts that a transform keeps the contract on 60 fit vectors of 12 dimensions.

    Shape, float32, finite; input untouched; rows do not talk; state saved and loaded; the order of the fit texts
    irrelevant; truthful `fitted`, `scale_free` and `out_dim`.

    Args:
        transform: the class or its registered name.
        params: its hyper-parameters.
    """
    kind = _class(transform, Transform)

    def new() -> Transform:
        built: Transform = kind(**params)
        return built

    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(12, 12))
    fit_vectors = (generator.normal(size=(60, 12)) @ mixing + 3).astype(np.float32)
    vectors = (generator.normal(size=(9, 12)) @ mixing + 3).astype(np.float32)
    before = fit_vectors.copy(), vectors.copy()
    part = new()
    _require(part.fit(fit_vectors) is part, "fit returns the transform itself")
    mapped = part(vectors)
    _require(mapped.dtype == np.float32, f"vectors are float32, not {mapped.dtype}")
    expected = (len(vectors), part.out_dim(*fit_vectors.shape))
    _require(mapped.shape == expected, f"out_dim is truthful: it promises {expected}, not {mapped.shape}")
    _require(bool(np.isfinite(mapped).all()), "vectors are finite")
    _require(np.array_equal(part(vectors), mapped), "a transform is deterministic")
    untouched = np.array_equal(fit_vectors, before[0]) and np.array_equal(vectors, before[1])
    _require(untouched, "the input is untouched")
    alone = np.concatenate([part(vectors[i : i + 1]) for i in range(len(vectors))])
    _close_arrays(alone, mapped, "rows do not talk: a vector alone is mapped as in a batch")
    _check_transform_state(part, new(), vectors, mapped)
    shuffled = new().fit(fit_vectors[generator.permutation(len(fit_vectors))])(vectors)
    _close_arrays(shuffled @ shuffled.T, mapped @ mapped.T, "the order of the fit texts is irrelevant")
    _check_fitted_is_truthful(new, vectors, mapped)
    if part.scale_free:
        scaled = new().fit(3 * fit_vectors)(3 * vectors)
        _close_arrays(_cosines(scaled), _cosines(mapped), "scale_free: scaling all vectors leaves the cosines as is")


def _class(part: Any, base: type) -> Any:
    found = card(part).part if isinstance(part, str) else part
    _require(isinstance(found, type) and issubclass(found, base), f"{part} is a {base.__name__}")
    return found


def _require(holds: bool, promise: str) -> None:
    if not holds:
        raise AssertionError(f"broken promise: {promise}")


def _close(found: Tensor, expected: Tensor, promise: str, tolerance: float = 1e-5) -> None:
    _require(found.shape == expected.shape, f"{promise}: shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    scale = max(1e-6, float(expected.detach().abs().max()))
    gap = float((found - expected).detach().abs().max()) / scale
    _require(gap <= tolerance, f"{promise}: relative difference {gap:.2g}")  # NaN fails too


def _close_arrays(found: np.ndarray, expected: np.ndarray, promise: str) -> None:
    _close(torch.from_numpy(found), torch.from_numpy(expected), promise, tolerance=1e-4)


def _texts(lengths: Sequence[int], dtype: torch.dtype = torch.float32) -> list[_Text]:
    """States like a residual stream's: each layer is the one before it and something new."""
    start = 4 * (torch.arange(SHAPE.dim) % 2) - 2  # every other dimension is mostly below 0
    texts = []
    for length in lengths:
        steps = torch.randn(SHAPE.states, length, SHAPE.dim, dtype=torch.float64)
        scores = torch.randn(SHAPE.blocks, HEADS, length, length, dtype=torch.float64)
        kept = 0.9 + 0.2 * torch.rand(scores.shape, dtype=torch.float64)
        attention = (scores.softmax(dim=-1) * kept).to(dtype)
        texts.append(_Text((start + steps.cumsum(dim=0)).to(dtype), attention, length // 2))
    return texts


_PADDINGS: tuple[tuple[Side, float], ...] = (("right", 0.0), ("left", 0.0), ("right", 1e4), ("left", 1e4))


def _batch(
    texts: Sequence[_Text], needs: Needs, *, side: Side = "right", garbage: float = 1.0, spare: int = 2
) -> LayerStates:
    """One batch with `spare` columns of padding more than it needs; what stands there is `garbage` times noise."""
    width = spare + max(text.hidden.shape[1] for text in texts)
    dtype = texts[0].hidden.dtype
    hidden = garbage * torch.randn(SHAPE.states, len(texts), width, SHAPE.dim).to(dtype)
    attention = garbage * torch.rand(SHAPE.blocks, len(texts), HEADS, width, width).to(dtype)
    mask = torch.zeros(len(texts), width, dtype=torch.bool)
    marker = torch.zeros(len(texts), dtype=torch.int64)
    for row, text in enumerate(texts):
        length = text.hidden.shape[1]
        start = 0 if side == "right" else width - length
        real = slice(start, start + length)
        hidden[:, row, real] = text.hidden
        attention[:, row, :, real, real] = text.attention
        mask[row, real] = True
        marker[row] = start + text.marker
    return LayerStates(
        hidden=hidden.unbind(),
        mask=mask,
        attention=attention.unbind() if Needs.ATTENTION in needs else None,
        marker=marker if Needs.MARKER in needs else None,
    )


def _tensors(states: LayerStates) -> list[Tensor]:
    marker = [] if states.marker is None else [states.marker]
    return [*states.hidden, states.mask, *(states.attention or ()), *marker]


def _check_declarations(part: Fusion) -> None:
    _require(isinstance(getattr(part, "needs", None), Needs), "a fusion declares its needs")
    layers = part.layers
    known = isinstance(layers, tuple) and all(layer in range(SHAPE.states) for layer in layers)
    _require(known and len(layers) > 0, f"layers are numbers of states from 0 to {SHAPE.blocks}, not {layers}")


def _check_vectors(part: Fusion, texts: Sequence[_Text]) -> Tensor:
    states = _batch(texts, part.needs)
    vectors: Tensor = part(states)
    promised = (len(texts), part.out_dim)
    _require(vectors.shape == promised, f"out_dim is truthful: it promises {promised}, not {tuple(vectors.shape)}")
    _require(vectors.dtype == torch.float32, f"vectors have the states' dtype float32, not {vectors.dtype}")
    _require(bool(vectors.isfinite().all()), "vectors are finite")
    _check_input_untouched(part, texts, part.needs)
    _require(torch.equal(part(states), vectors), "a fusion is deterministic")
    return vectors.detach()


def _check_input_untouched(part: Fusion | Guide, texts: Sequence[_Text], needs: Needs) -> None:
    states = _batch(texts, needs)
    means = [states.mean(layer).clone() for layer in range(SHAPE.states)] if isinstance(part, Fusion) else []
    before = [tensor.clone() for tensor in _tensors(states)]
    part(states)
    untouched = all(torch.equal(old, new) for old, new in zip(before, _tensors(states), strict=True))
    untouched = untouched and all(torch.equal(mean, states.mean(layer)) for layer, mean in enumerate(means))
    _require(untouched, "the input is untouched")


def _check_padding_and_rows(
    forward: Callable[[LayerStates], Tensor], needs: Needs, texts: Sequence[_Text], vectors: Tensor
) -> None:
    for side, garbage in _PADDINGS:
        padded = forward(_batch(texts, needs, side=side, garbage=garbage))
        _close(padded, vectors, f"padding is invisible ({side}, filled with about {garbage:g})")
    alone = torch.cat([forward(_batch([text], needs, spare=0)) for text in texts])
    _close(alone, vectors, "rows do not talk: a text alone gets the vector that it gets in a batch")
    order = list(reversed(range(len(texts))))
    _close(forward(_batch([texts[i] for i in order], needs)), vectors[order], "reordered texts, reordered vectors")


def _check_layers_are_truthful(part: Fusion, texts: Sequence[_Text], vectors: Tensor) -> None:
    others = [layer for layer in range(SHAPE.states) if layer not in part.layers]
    for text in (changed := copy.deepcopy(list(texts))):
        text.hidden[others] += 1
    message = f"layers are truthful: states other than {part.layers} change nothing"
    _close(part(_batch(changed, part.needs)), vectors, message)


class _Watched(dict[int, Tensor]):
    """A mapping that remembers what was looked up."""

    def __init__(self, content: Mapping[int, Tensor]) -> None:
        super().__init__(content)
        self.read: set[int] = set()

    def __getitem__(self, layer: int) -> Tensor:
        self.read.add(layer)
        return super().__getitem__(layer)


def _check_pooled_states_are_enough(part: Fusion, texts: Sequence[_Text], vectors: Tensor) -> None:
    live = _batch(texts, part.needs)
    declared = part.layers
    means = _Watched({k: live.mean(k) for k in declared} if Needs.MEANS in part.needs else {})
    firsts = _Watched({k: live.first(k) for k in declared} if Needs.FIRSTS in part.needs else {})
    before = {id(store): {k: store[k].clone() for k in list(store)} for store in (means, firsts)}
    stored = PooledStates(means, firsts)
    means.read.clear()
    firsts.read.clear()
    try:
        found = part(stored)
    except (KeyError, AttributeError) as error:
        raise AssertionError(
            f"broken promise: needs and layers are truthful: {part.needs} of {declared} are not enough ({error!r})"
        ) from error
    _close(found, vectors, "a pooled fusion finds the same in stored means and first tokens as in live states")
    for need, store in ((Needs.MEANS, means), (Needs.FIRSTS, firsts)):
        _require(
            need not in part.needs or bool(store.read), f"needs are truthful: {need} is declared, but never read"
        )
        untouched = all(torch.equal(store[k], old) for k, old in before[id(store)].items())
        _require(untouched, "the input is untouched")
    unread = set(declared) - means.read - firsts.read
    _require(not unread, f"layers are truthful: {sorted(unread)} are declared, but never read")


def _check_bfloat16(part: Fusion, texts: Sequence[_Text]) -> None:
    """Against float32 on the same rounded states, so that only the fusion's own arithmetic counts."""
    rounded = [_Text(t.hidden.bfloat16(), t.attention.bfloat16(), t.marker) for t in texts]
    again = [_Text(t.hidden.float(), t.attention.float(), t.marker) for t in rounded]
    small = copy.deepcopy(part).to(torch.bfloat16)
    found = small(_batch(rounded, part.needs))
    _require(found.dtype == torch.bfloat16, f"vectors have the states' dtype bfloat16, not {found.dtype}")
    tolerance = 0.1 if list(part.parameters()) else 0.01
    expected = copy.deepcopy(small).float()(_batch(again, part.needs))
    _close(found.float(), expected, "bfloat16 is close to float32", tolerance)


def _doubles(texts: Sequence[_Text]) -> list[_Text]:
    return [_Text(t.hidden.double(), t.attention.double(), t.marker) for t in texts]


def _with_gradients(states: LayerStates) -> tuple[list[Tensor], LayerStates]:
    """The float tensors of a batch as leaves, and states made of them."""
    hidden = [tensor.clone().requires_grad_() for tensor in states.hidden]
    maps = [tensor.clone().requires_grad_() for tensor in states.attention or ()]
    return [*hidden, *maps], LayerStates(tuple(hidden), states.mask, tuple(maps) or None, states.marker)


def _check_gradients(part: Fusion, texts: Sequence[_Text]) -> None:
    part = copy.deepcopy(part).double()
    weights = dict(part.named_parameters())
    for weight in weights.values():
        weight.data += 0.1 * torch.randn_like(weight)  # zeros at the start would hide what stands behind them
    leaves, states = _with_gradients(_batch(_doubles(texts), part.needs))
    vectors = part(states)
    weighting = torch.randn_like(vectors)
    asked = [*leaves[: SHAPE.states], *weights.values()]
    gradients = torch.autograd.grad((vectors * weighting).sum(), asked, allow_unused=True)
    for name, gradient in zip(weights, gradients[SHAPE.states :], strict=True):
        _require(_is_some(gradient), f"the gradient reaches every weight, but not '{name}'")
    for layer in part.layers:
        gradient = gradients[layer]
        _require(_is_some(gradient), f"the gradient reaches every declared state, but not state {layer}")
        if gradient is not None:
            _require(not bool(gradient[~states.mask].any()), "padding is invisible to the gradient")
    _gradcheck(part, _doubles(texts[:3]), weights)


def _is_some(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())


def _gradcheck(part: Fusion | Guide, texts: Sequence[_Text], weights: Mapping[str, Tensor]) -> None:
    leaves, states = _with_gradients(_batch(texts, part.needs))
    hidden = SHAPE.states

    def forward(*inputs: Tensor) -> Tensor:
        given = LayerStates(inputs[:hidden], states.mask, inputs[hidden : len(leaves)] or None, states.marker)
        named = dict(zip(weights, inputs[len(leaves) :], strict=True))
        result: Tensor = torch.func.functional_call(part, named, (given,))
        return result

    values = [weight.detach().clone().requires_grad_() for weight in weights.values()]
    try:
        torch.autograd.gradcheck(forward, (*leaves, *values), fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(
            f"broken promise: gradients are those of finite differences in float64: {error}"
        ) from error


def _check_weights_round_trip(part: Fusion, other: Fusion, texts: Sequence[_Text], vectors: Tensor) -> None:
    """Loaded into a fresh instance, whose own random weights must not shine through."""
    for weight in other.parameters():
        weight.data += 1
    saved = safetensors.torch.save({name: tensor.contiguous() for name, tensor in part.state_dict().items()})
    other.load_state_dict(safetensors.torch.load(saved))
    loaded = other(_batch(texts, part.needs))
    _close(loaded, vectors, "equal parameters and loaded weights give equal vectors", 1e-6)


def _check_missing_maps_are_refused(part: Guide, states: LayerStates) -> None:
    for nothing in (None, ()):
        try:
            part(LayerStates(states.hidden, states.mask, nothing, states.marker))
        except Exception:
            continue
        raise AssertionError("broken promise: missing attention maps raise; they are no penalty of zero")


def _check_guide_gradients(part: Guide, texts: Sequence[_Text]) -> None:
    part = copy.deepcopy(part).double()
    leaves, states = _with_gradients(_batch(_doubles(texts), part.needs))
    watched = leaves[SHAPE.states :] or leaves
    gradients = torch.autograd.grad(part(states), watched, allow_unused=True)
    _require(any(_is_some(gradient) for gradient in gradients), "the gradient reaches what the guide penalises")
    for gradient in gradients:
        if gradient is not None and Needs.ATTENTION in part.needs:
            padding = ~(states.mask[:, None, :, None] & states.mask[:, None, None, :])
            _require(not bool((gradient * padding).any()), "padding is invisible to the gradient")
    _gradcheck(part, _doubles(texts[:3]), dict(part.named_parameters()))


def _check_transform_state(part: Transform, other: Transform, vectors: np.ndarray, mapped: np.ndarray) -> None:
    saved = safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in part.state().items()})
    loaded = other.load_state(safetensors.numpy.load(saved))
    _require(loaded is other, "load_state returns the transform itself")
    _close_arrays(loaded(vectors), mapped, "a loaded transform maps as the saved one")


def _check_fitted_is_truthful(new: Callable[[], Transform], vectors: np.ndarray, mapped: np.ndarray) -> None:
    other_texts = np.random.default_rng(1).normal(size=(60, vectors.shape[1])).astype(np.float32)
    elsewhere = new().fit(other_texts)(vectors)
    if new().fitted:
        same = elsewhere.shape == mapped.shape and np.allclose(elsewhere, mapped, rtol=1e-3)
        _require(not same, "fitted is truthful: other fit texts give another map")
    else:
        _close_arrays(elsewhere, mapped, "fitted is truthful: the fit texts change nothing")
        _close_arrays(new()(vectors), mapped, "fitted is truthful: it maps without having been fitted")


def _cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T
