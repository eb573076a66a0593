"""A method in the modules that sentence-transformers brings along, where these can say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusebench.errors import InputError
from fusebench.methods.backbone import DTYPES, Backbone
from fusebench.methods.backbone_loading import quiet_transformers
from fusebench.methods.grammar import Method
from fusebench.methods.native_pooling import MODES, NativePooling
from fusebench.methods.parts import Fusion, Transform
from fusebench.methods.sentence_bert_config import stated_lower_case
from fusebench.methods.states import Needs
from fusebench.methods.tokenization import position_tables
from fusebench.study.layer_weights import layer_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_MODE_OF = {part: mode for mode, part in MODES.items()}
_EXPRESSIBLE = (
    "these can be said: cls, mean, max, mean-sqrt-len, weighted-mean and last-token of one layer, weighted sums of "
    "layers (first-last, last-k-mean, last-k-sum, layer-mean, scalar-mix, weighted-layers), and the transforms "
    "whiten, abtt, standardize and normalize"
)


class NotStockError(InputError):
    """A fusion that sentence-transformers' own modules cannot say."""


Map = tuple[NDArray[np.float64], NDArray[np.float64]]  # A [out, in] and b [out] of y = A x + b


@dataclass(frozen=True, eq=False)
class StockForm:
    """A method as sentence-transformers would say it: layers mixed, tokens pooled, vectors mapped.

    Attributes:
        mode: of its Pooling.
        layers: weights of the states `[L + 1]`, which sum to 1; None reads the last state alone.
        maps: of the pooled vector, in order; None stands for unit length.
    """

    mode: str
    layers: NDArray[np.float64] | None
    maps: tuple[Map | None, ...]


def stock_form(method: Method, fusion: Fusion, transforms: Sequence[Transform], backbone: Backbone) -> StockForm:
    """The method in stock terms.

    Args:
        method: its sentence.
        fusion: with its weights in place.
        transforms: fitted.
        backbone: what it reads.

    Raises:
        NotStockError: if sentence-transformers' own modules cannot say the fusion, with what they can.
        InputError: if they cannot say a transform.
    """
    if isinstance(fusion, NativePooling):
        raise InputError(
            f"{method.name}: the folder of {backbone.source.name} is a sentence-transformers model of its own "
            "pooling already; use it as it is."
        )
    mode, weights = _pooling(method, fusion, backbone)
    total = float(weights.sum())
    if abs(total) <= 1e-3 * np.abs(weights).sum():
        raise NotStockError(
            f"{method.fusion}: its layer weights sum to 0, and sentence-transformers divides by their sum."
        )
    layers = weights / total
    alone = abs(layers[-1] - 1) < 1e-6 and np.abs(layers[:-1]).max() < 1e-6
    scale: list[Map | None] = []
    if abs(total - 1) > 1e-6:
        scale = [(total * np.eye(fusion.out_dim), np.zeros(fusion.out_dim))]
    return StockForm(mode, None if alone else layers, (*scale, *maps_of(method, transforms)))


def maps_of(method: Method, transforms: Sequence[Transform]) -> list[Map | None]:
    """The method's transforms, fitted, each as a map of vectors.

    Raises:
        InputError: if sentence-transformers' own modules cannot say one.
    """
    return [_map(part.name, transform) for part, transform in zip(method.transforms, transforms, strict=True)]


def _pooling(method: Method, fusion: Fusion, backbone: Backbone) -> tuple[str, NDArray[np.float64]]:
    """Pooling mode and layer weights."""
    name, shape = method.fusion.name, backbone.shape
    weights = layer_weights(fusion, shape)
    if weights is not None:
        return ("mean" if fusion.needs == Needs.MEANS else "cls"), weights
    if name not in _MODE_OF:
        raise NotStockError(f"sentence-transformers has no modules of its own for {method.fusion}; {_EXPRESSIBLE}.")
    return _MODE_OF[name], np.eye(shape.states)[fusion.layers[0]]


def _map(name: str, transform: Transform) -> Map | None:
    if name == "normalize":
        return None
    if name not in _MATRICES:
        raise InputError(f"sentence-transformers has no module of its own for {name}; {_EXPRESSIBLE}.")
    state = transform.state()
    matrix = _MATRICES[name](state)
    return matrix, -matrix @ state["mean"]


# Of transforms that are y = A (x - mean).
_MATRICES: Mapping[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {
    "whiten": lambda state: state["kernel"].T,
    "abtt": lambda state: np.eye(len(state["mean"])) - state["directions"] @ state["directions"].T,
    "standardize": lambda state: np.diag(state["scale"]),
}


def stock_model(form: StockForm, backbone: Backbone, *, tuned: bool = False) -> SentenceTransformer:
    """The method as a `SentenceTransformer`, read anew from the backbone's folder.

    Args:
        form: what it does.
        backbone: where from, with which limit and type.
        tuned: whether the backbone's weights are no longer those of its folder.

    Raises:
        InputError: if batches cannot be padded.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    modules: list[Any] = [transformer_module(backbone, all_layers=form.layers is not None, tuned=tuned)]
    if form.layers is not None:
        modules.append(_mixture(form.layers, backbone))
    modules.append(Pooling(backbone.shape.dim, form.mode))
    modules += map_modules(form.maps)
    return SentenceTransformer(modules=modules, device=str(backbone.device))


def transformer_module(backbone: Backbone, *, all_layers: bool, tuned: bool) -> Any:
    """The backbone as a module, read anew from its folder.

    Args:
        backbone: where from, with which limit and type.
        all_layers: whether the states of all layers are put out.
        tuned: whether the backbone's weights are no longer those of its folder.

    Raises:
        InputError: if it brings code of its own, or batches cannot be padded.
    """
    if backbone.remote_code:
        raise InputError("the backbone comes with code of its own, which stock modules do not load.")
    from sentence_transformers.sentence_transformer.modules import Transformer

    folder = backbone.source.folder
    with quiet_transformers():
        transformer = Transformer(
            str(folder),
            max_seq_length=backbone.limit.tokens,
            do_lower_case=stated_lower_case(folder),
            model_kwargs={"dtype": DTYPES[backbone.dtype]},
            config_kwargs={"output_hidden_states": True} if all_layers else {},
        )
    if tuned:
        transformer.model.load_state_dict(backbone.model.state_dict())
    words = transformer.tokenizer
    if words.pad_token is None:
        if words.eos_token is None:
            raise InputError("sentence-transformers needs a padding token, and this backbone's tokenizer has none.")
        words.pad_token = words.eos_token  # padding is masked, so any token will do
    if words.padding_side == "left" and position_tables(transformer.model):
        # It numbers positions from the padding on; on the right, padding comes after all that counts.
        words.padding_side = "right"
    return transformer


def _mixture(layers: NDArray[np.float64], backbone: Backbone) -> Any:
    from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling

    # A bare tensor would not be saved, and any other start would shift the weights against the layers.
    weights = torch.nn.Parameter(torch.from_numpy(layers).float())
    shape = backbone.shape
    return WeightedLayerPooling(shape.dim, num_hidden_layers=shape.blocks, layer_start=0, layer_weights=weights)


def map_modules(maps: Sequence[Map | None]) -> list[Any]:
    """Each as a Dense or a Normalize module."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    return [Normalize() if one is None else _dense(*one) for one in maps]


def _dense(matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Any:
    from sentence_transformers.sentence_transformer.modules import Dense

    weight, bias = (torch.from_numpy(np.ascontiguousarray(one)).float() for one in (matrix, shift))
    return Dense(matrix.shape[1], matrix.shape[0], activation_function=None, init_weight=weight, init_bias=bias)
