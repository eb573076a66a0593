"""Linear layers whose products oneDNN computes on a processor.

torch sends float32 products on x86 to MKL, which does not use all that processors other than Intel's can do; oneDNN,
which torch carries too, compiles its kernels for the processor at hand. Both are float32 throughout; their results
differ in the last bits. `scripts/speed_of_encoding.py` measures what it gains.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Model = TypeVar("Model", bound=nn.Module)


def use_onednn(module: Model) -> Model:
    """Makes every linear layer of a module compute by oneDNN where that is possible; the same module.

    Weights, names and everything else stay as they are; what is computed differs by rounding.
    """
    if available():
        for layer in list(module.modules()):
            if type(layer) is nn.Linear:
                layer.__class__ = OneDNNLinear
            elif _widens_by_gelu(layer):
                layer.__class__ = _fused(cast(Callable[..., nn.Module], type(layer)))
    return module


@contextlib.contextmanager
def by_torch(module: nn.Module) -> Iterator[None]:
    """Within, the layers of a module compute as torch does by itself, for tools that know nothing else."""
    changed = [(layer, type(layer)) for layer in module.modules()]
    changed = [(layer, kind) for layer, kind in changed if kind is OneDNNLinear or hasattr(kind, "unfused")]
    for layer, kind in changed:
        layer.__class__ = getattr(kind, "unfused", nn.Linear)
    try:
        yield
    finally:
        for layer, kind in changed:
            layer.__class__ = kind


@functools.cache
def available() -> bool:
    """Whether torch carries oneDNN for this kind of processor."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


def linear(
    inputs: Float[Tensor, "*rows dim"], weight: Float[Tensor, "out dim"], bias: Float[Tensor, " out"] | None
) -> Float[Tensor, "*rows out"]:
    """`x W^T + b` on a processor, float32, differentiable once."""
    inputs = inputs.contiguous()  # oneDNN takes a hundred times as long for rows that lie apart
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (inputs, weight, bias)):
        return cast(Tensor, _Linear.apply(inputs, weight, bias))  # type: ignore[no-untyped-call]
    return _product(inputs, weight, bias)


class OneDNNLinear(nn.Linear):
    """`nn.Linear` by oneDNN; whatever is no float32 on a processor goes torch's own way."""

    def forward(self, input: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows out"]:
        """`x W^T + b`."""
        return linear(input, self.weight, self.bias) if _fits(input, self.weight) else super().forward(input)


class _Linear(torch.autograd.Function):
    """The product and its gradients: `dx = dy W`, `dW = dy^T x`, `db = sum dy`."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.biased = bias is not None
        return _product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        for_inputs, for_weight, for_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _product(gradient, weight.t(), None) if for_inputs else None,
            _product(rows.t(), inputs.reshape(-1, inputs.shape[-1]).t(), None) if for_weight else None,
            rows.sum(dim=0) if ctx.biased and for_bias else None,
        )


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none", how: str = "") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, then, [], how)


def _fits(inputs: Tensor, weight: Tensor) -> bool:
    floats = inputs.dtype == weight.dtype == torch.float32
    on_processor = inputs.device.type == weight.device.type == "cpu"
    return floats and on_processor and inputs.numel() > 0 and not torch.is_autocast_enabled("cpu")


def _widens_by_gelu(layer: nn.Module) -> bool:
    """Whether this is the first half of a feed-forward block as BERT and its relatives write it."""
    if type(getattr(layer, "dense", None)) not in (nn.Linear, OneDNNLinear) or hasattr(layer, "unfused"):
        return False
    from transformers.activations import GELUActivation

    return type(getattr(layer, "intermediate_act_fn", None)) is GELUActivation


@functools.cache
def _fused(kind: type[nn.Module]) -> type[nn.Module]:
    """The same kind of layer, which applies GELU to the product while it is in the cache."""

    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        dense = self.dense
        if torch.is_grad_enabled() or not _fits(hidden_states, dense.weight):
            return kind.forward(self, hidden_states)
        return _product(hidden_states.contiguous(), dense.weight, dense.bias, "gelu", "none")

    return type(kind.__name__, (kind,), {"forward": forward, "unfused": kind, "__doc__": kind.__doc__})
