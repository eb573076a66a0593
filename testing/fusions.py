"""The contract of fusions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fusebench.methods.parts import Fusion
from fusebench.methods.states import LayerStates, Needs, PooledStates
from fusebench.testing.made_up import LENGTHS, PADDINGS, SHAPE, Text, batch, doubles, made_up_texts, with_gradients
from fusebench.testing.passes import check_input_untouched, gradcheck, is_some
from fusebench.testing.promises import close, part_class, require


def check_fusion(fusion: type[Fusion] | str, /, **params: Any) -> None:
    """Asserts that a fusion keeps the contract on a backbone of 6 blocks and 16 dimensions.

    Shape and dtype; truthful `layers`, `needs` and `out_dim`; padding invisible; rows do not talk; order of rows
    irrelevant; input untouched; deterministic; finite; bfloat16 close to float32; gradients right and reaching
    every declared state and every weight; weights saved and loaded.

    Args:
        fusion: the class or its registered name.
        params: its hyper-parameters.
    """
    kind = part_class(fusion, Fusion)

    def new() -> Fusion:
        built: Fusion = kind(SHAPE, **params)
        return built.eval()

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        part = new()
        texts = made_up_texts(LENGTHS)
        _check_declarations(part)
        vectors = _check_vectors(part, texts)
        _check_padding_and_rows(lambda states: part(states), part.needs, texts, vectors)
        _check_layers_are_truthful(part, texts, vectors)
        if part.needs.pooled:
            _check_pooled_states_are_enough(part, texts, vectors)
        _check_bfloat16(part, texts)
        _check_gradients(part, texts)
        _check_weights_round_trip(part, new(), texts, vectors)


def _check_declarations(part: Fusion) -> None:
    require(isinstance(getattr(part, "needs", None), Needs), "a fusion declares its needs")
    layers = part.layers
    known = isinstance(layers, tuple) and all(layer in range(SHAPE.states) for layer in layers)
    require(known and len(layers) > 0, f"layers are numbers of states from 0 to {SHAPE.blocks}, not {layers}")


def _check_vectors(part: Fusion, texts: Sequence[Text]) -> Tensor:
    states = batch(texts, part.needs)
    vectors: Tensor = part(states)
    promised = (len(texts), part.out_dim)
    require(vectors.shape == promised, f"out_dim is truthful: it promises {promised}, not {tuple(vectors.shape)}")
    require(vectors.dtype == torch.float32, f"vectors have the states' dtype float32, not {vectors.dtype}")
    require(bool(vectors.isfinite().all()), "vectors are finite")
    check_input_untouched(part, texts, part.needs)
    require(torch.equal(part(states), vectors), "a fusion is deterministic")
    return vectors.detach()


def _check_padding_and_rows(
    forward: Callable[[LayerStates], Tensor], needs: Needs, texts: Sequence[Text], vectors: Tensor
) -> None:
    for side, garbage in PADDINGS:
        padded = forward(batch(texts, needs, side=side, garbage=garbage))
        close(padded, vectors, f"padding is invisible ({side}, filled with about {garbage:g})")
    alone = torch.cat([forward(batch([text], needs, spare=0)) for text in texts])
    close(alone, vectors, "rows do not talk: a text alone gets the vector that it gets in a batch")
    order = list(reversed(range(len(texts))))
    close(forward(batch([texts[i] for i in order], needs)), vectors[order], "reordered texts, reordered vectors")


def _check_layers_are_truthful(part: Fusion, texts: Sequence[Text], vectors: Tensor) -> None:
    others = [layer for layer in range(SHAPE.states) if layer not in part.layers]
    for text in (changed := copy.deepcopy(list(texts))):
        text.hidden[others] += 1
    message = f"layers are truthful: states other than {part.layers} change nothing"
    close(part(batch(changed, part.needs)), vectors, message)


class _Watched(dict[int, Tensor]):
    """A mapping that remembers what was looked up."""

    def __init__(self, content: Mapping[int, Tensor]) -> None:
        super().__init__(content)
        self.read: set[int] = set()

    def __getitem__(self, layer: int) -> Tensor:
        self.read.add(layer)
        return super().__getitem__(layer)


def _check_pooled_states_are_enough(part: Fusion, texts: Sequence[Text], vectors: Tensor) -> None:
    live = batch(texts, part.needs)
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
    close(found, vectors, "a pooled fusion finds the same in stored means and first tokens as in live states")
    for need, store in ((Needs.MEANS, means), (Needs.FIRSTS, firsts)):
        require(need not in part.needs or bool(store.read), f"needs are truthful: {need} is declared, but never read")
        untouched = all(torch.equal(store[k], old) for k, old in before[id(store)].items())
        require(untouched, "the input is untouched")
    unread = set(declared) - means.read - firsts.read
    require(not unread, f"layers are truthful: {sorted(unread)} are declared, but never read")


def _check_bfloat16(part: Fusion, texts: Sequence[Text]) -> None:
    """Against float32 on the same rounded states, so that only the fusion's own arithmetic counts."""
    rounded = [Text(t.hidden.bfloat16(), t.attention.bfloat16(), t.marker) for t in texts]
    again = [Text(t.hidden.float(), t.attention.float(), t.marker) for t in rounded]
    small = copy.deepcopy(part).to(torch.bfloat16)
    found = small(batch(rounded, part.needs))
    require(found.dtype == torch.bfloat16, f"vectors have the states' dtype bfloat16, not {found.dtype}")
    tolerance = 0.1 if list(part.parameters()) else 0.01
    expected = copy.deepcopy(small).float()(batch(again, part.needs))
    close(found.float(), expected, "bfloat16 is close to float32", tolerance)


def _check_gradients(part: Fusion, texts: Sequence[Text]) -> None:
    part = copy.deepcopy(part).double()
    weights = dict(part.named_parameters())
    for weight in weights.values():
        weight.data += 0.1 * torch.randn_like(weight)  # zeros at the start would hide what stands behind them
    leaves, states = with_gradients(batch(doubles(texts), part.needs))
    vectors = part(states)
    weighting = torch.randn_like(vectors)
    asked = [*leaves[: SHAPE.states], *weights.values()]
    gradients = torch.autograd.grad((vectors * weighting).sum(), asked, allow_unused=True)
    for name, gradient in zip(weights, gradients[SHAPE.states :], strict=True):
        require(is_some(gradient), f"the gradient reaches every weight, but not '{name}'")
    for layer in part.layers:
        gradient = gradients[layer]
        require(is_some(gradient), f"the gradient reaches every declared state, but not state {layer}")
        if gradient is not None:
            require(not bool(gradient[~states.mask].any()), "padding is invisible to the gradient")
    gradcheck(part, doubles(texts[:3]), weights)


def _check_weights_round_trip(part: Fusion, other: Fusion, texts: Sequence[Text], vectors: Tensor) -> None:
    """Loaded into a fresh instance, whose own random weights must not shine through."""
    for weight in other.parameters():
        weight.data += 1
    saved = safetensors.torch.save({name: tensor.contiguous() for name, tensor in part.state_dict().items()})
    other.load_state_dict(safetensors.torch.load(saved))
    loaded = other(batch(texts, part.needs))
    close(loaded, vectors, "equal parameters and loaded weights give equal vectors", 1e-6)
