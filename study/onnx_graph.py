"""A method as one ONNX graph from token ids to vectors, and a tokenizer that cuts and pads by itself."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.onednn_linear import by_torch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_GRAPH, _TOKENIZER = "model.onnx", "tokenizer.json"


class _Embedding(nn.Module):
    """Token ids and mask `[batch, tokens]` through all modules of a model, to vectors `[batch, out]`."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        transformer, *others = model
        self.backbone: Any = transformer.model
        self.others = nn.ModuleList(others)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The vectors."""
        out = self.backbone(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        features = {
            "attention_mask": attention_mask,
            "token_embeddings": out.last_hidden_state,
            "all_layer_embeddings": out.hidden_states,
        }
        for module in self.others:
            features = module(features)
        return features["sentence_embedding"]


def write_graph(model: SentenceTransformer, backbone: Backbone, folder: Path) -> None:
    """Writes graph and tokenizer.

    Args:
        model: on any device, with its weights in place.
        backbone: whose tokenizer and limit.
        folder: is there.

    Raises:
        InputError: if onnx is not installed, the tokenizer is no fast one, or torch cannot express the model in ONNX.
    """
    _require_onnx()
    words = _tokenizer(backbone)
    words.save(str(folder / _TOKENIZER))
    rows = words.encode_batch(["two texts", "of different length, so that one is padded"])
    example = tuple(_column(rows, name).to(model.device) for name in ("ids", "attention_mask"))
    any_size = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    try:
        with torch.no_grad(), by_torch(model), _quiet():
            program = torch.onnx.export(
                _Embedding(model).eval(),
                example,
                dynamo=True,
                verbose=False,
                dynamic_shapes=(any_size, any_size),
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                custom_translation_table={torch.ops.aten.rrelu_with_noise_functional.default: _rrelu},
            )
            assert program is not None
            program.save(folder / _GRAPH)
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(
            f"torch cannot express this method on {backbone.architecture} in ONNX ({_reason(error)}); without "
            "--format onnx it is exported for sentence-transformers."
        ) from error


class OnnxModel:
    """A folder of `write_graph`, read by onnxruntime and tokenizers alone.

    Raises:
        InputError: if onnxruntime refuses the graph.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        self._words = Tokenizer.from_file(str(folder / _TOKENIZER))
        try:
            self._session = onnxruntime.InferenceSession(folder / _GRAPH, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise InputError(f"onnxruntime cannot run this method: {str(error).splitlines()[0]}") from error

    def encode(self, texts: Sequence[str], batch_size: int = 4) -> np.ndarray:
        """Vectors of the texts, in batches as they come."""
        vectors = []
        for start in range(0, len(texts), batch_size):
            rows = self._words.encode_batch(list(texts[start : start + batch_size]))
            inputs = {"input_ids": _column(rows, "ids"), "attention_mask": _column(rows, "attention_mask")}
            vectors += self._session.run(None, {name: values.numpy() for name, values in inputs.items()})
        return np.concatenate(vectors)


def _tokenizer(backbone: Backbone) -> Any:
    from tokenizers import Tokenizer

    own = backbone.tokenizer
    if not own.is_fast:
        raise InputError(f"{backbone.source.name} has no fast tokenizer (tokenizer.json), which ONNX export needs.")
    words = Tokenizer.from_str(own.backend_tokenizer.to_str())
    words.enable_truncation(backbone.limit.tokens)
    # Padding is masked, so any token will do; on the right, positions count from the text's start.
    token = own.pad_token or own.eos_token
    words.enable_padding(direction="right", pad_id=words.token_to_id(token) if token else 0, pad_token=token or "")
    return words


def _column(rows: Sequence[Any], name: str) -> Tensor:
    return torch.tensor([getattr(row, name) for row in rows])


def _rrelu(x: Any, noise: Any, lower: float = 1 / 8, upper: float = 1 / 3, *_: Any, **__: Any) -> tuple[Any, Any]:
    """RReLU outside of training, whose slope is the mean of its bounds; torch.onnx does not know it."""
    from onnxscript import opset18

    return opset18.LeakyRelu(x, alpha=(lower + upper) / 2), noise


def _reason(error: BaseException) -> str:
    """The first line of what torch met first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"--format onnx needs the package {error.name}: python -m pip install -c constraints.txt -e '.[onnx]'"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter from reporting its steps and what else could be installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
