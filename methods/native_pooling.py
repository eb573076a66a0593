"""What a sentence-transformers folder puts behind its transformer: the method `native`."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fusebench.errors import InputError
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import cards, register
from fusebench.methods.sentence_bert_config import read_stated
from fusebench.methods.states import LayerStates, Needs, StateShape

# Name in sentence-transformers -> part. Older folders have one flag a mode, newer ones a list of modes.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt-len",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last-token",
}
MODES = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "mean-sqrt-len",
    "weightedmean": "weighted-mean",
    "lasttoken": "last-token",
}
_CHAIN = re.compile(r"Transformer( WeightedLayerPooling)? Pooling( Dense| LayerNorm| Normalize)*")
_WITH_WEIGHTS = ("WeightedLayerPooling", "Dense", "LayerNorm")


@dataclass(frozen=True)
class _Stated:
    """A module that `modules.json` lists, by the name of its class and its folder."""

    kind: str
    folder: Path


class NativePooling(Fusion):
    """Layers mixed, tokens pooled and vectors mapped as the backbone's own folder states.

    Computed by the modules of sentence-transformers that the folder names. Their weights are the folder's and are
    not trained. Departures: none.

    Attributes:
        modules_behind: those modules, in order; each fusion has a copy.
    """

    needs = Needs.TOKENS
    modules_behind: ClassVar[nn.Sequential]

    def __init__(self, shape: StateShape) -> None:
        super().__init__()
        self.chain = copy.deepcopy(self.modules_behind).requires_grad_(False)
        start = getattr(self.chain[0], "layer_start", None)
        self.layers = (shape.blocks,) if start is None else tuple(range(start, shape.states))
        one_token = LayerStates((torch.zeros(1, 1, shape.dim),) * shape.states, torch.ones(1, 1, dtype=torch.bool))
        try:
            self.out_dim = self(one_token).shape[1]
        except (RuntimeError, KeyError) as error:
            raise InputError(
                f"native: the modules of this backbone do not fit each other or its {shape.states} layer states "
                f"({error}); name a pooling, e.g. mean."
            ) from error

    def forward(self, states: LayerStates) -> Float[Tensor, "batch out"]:
        """Shape `[batch, out]`."""
        features = {
            "all_layer_embeddings": states.hidden,
            "token_embeddings": states.hidden[-1],
            "attention_mask": states.mask.long(),
        }
        vectors: Tensor = self.chain(features)["sentence_embedding"]
        return vectors


def native_sentence(folder: Path) -> str:
    """The method sentence of the folder's own pooling.

    What the parts here can say is said in them, e.g. `mean+normalize`. Anything else becomes a fusion that is
    registered under a hash of its modules, e.g. `native-1f0c36a2b9`.

    Raises:
        InputError: if the folder states none, or one that cannot be read.
    """
    stated = _stated(folder)
    kinds = [one.kind for one in stated]
    if not _CHAIN.fullmatch(" ".join(kinds)):
        raise InputError(
            f"native: this backbone's modules are {', '.join(kinds)}; what can be read is a Transformer, at most a "
            "WeightedLayerPooling, one Pooling, and any Dense, LayerNorm and Normalize."
        )
    pooling = read_stated(next(one.folder for one in stated if one.kind == "Pooling") / "config.json", dict)
    if pooling is None:
        raise InputError("native: the pooling module of this backbone has no config.json; fetch it again.")
    modes = _modes(pooling)
    if not modes or not set(modes) <= set(MODES.values()):
        raise InputError(
            f"native: this backbone pools by {' and '.join(modes) or 'nothing'}; "
            f"only {', '.join(MODES.values())} can be read."
        )
    if len(modes) == 1 and kinds[1:] in (["Pooling"], ["Pooling", "Normalize"]):
        return "+".join([modes[0], *(["normalize"] if "Normalize" in kinds else [])])
    return _registered(stated[1:])


def _stated(folder: Path) -> list[_Stated]:
    """The modules that the folder lists."""
    listed = read_stated(folder / "modules.json", list)
    if listed is None:
        raise InputError(
            "native: this backbone has no modules.json, so it states no pooling of its own; name one, e.g. mean."
        )
    if not all(isinstance(one, dict) and {"type", "path"} <= one.keys() for one in listed):
        raise InputError("native: modules.json of this backbone does not list modules; fetch it again.")
    if outside := [one["path"] for one in listed if not re.fullmatch(r"[\w-]*", str(one["path"]))]:
        raise InputError(f"native: modules.json of this backbone names '{outside[0]}', which is no folder in it.")
    return [_Stated(str(one["type"]).rsplit(".", 1)[-1], folder / str(one["path"])) for one in listed]


def _modes(config: dict[str, Any]) -> list[str]:
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [str(mode) for mode in (named if isinstance(named, list) else [named])]
        return [MODES.get(mode, mode) for mode in modes]
    # sentence-transformers takes the mean where no flag is set.
    return [part for flag, part in _FLAGS.items() if config.get(flag)] or ["mean"]


def _registered(stated: Sequence[_Stated]) -> str:
    """Name of the fusion that these modules are."""
    name = f"native-{_sha256(stated)[:10]}"
    if name not in {card.name for card in cards("fusion")}:
        kinds = ", ".join(one.kind for one in stated)
        # Scores depend on this file; abc would else be named as the place of the class.
        about = f"The backbone's own modules: {kinds}.\n\nDepartures: none."
        body: dict[str, object] = {"__module__": __name__, "__doc__": about}
        body["modules_behind"] = _loaded(stated)
        register(name, paper="https://github.com/huggingface/sentence-transformers")(
            type("NativePooling", (NativePooling,), body)
        )
    return name


def _sha256(stated: Sequence[_Stated]) -> str:
    """Hash over what the modules are, how they are set, and their weights."""
    digest = hashlib.sha256()
    for one in stated:
        config = read_stated(one.folder / "config.json", dict)
        digest.update(f"{one.kind}\0{json.dumps(config, sort_keys=True)}\0".encode())
        if one.kind in _WITH_WEIGHTS:
            weights = one.folder / "model.safetensors"
            if not weights.is_file():
                raise InputError(
                    f"native: the {one.kind} of this backbone has no model.safetensors, and other weights are not "
                    "read, because pickle can run code; save the model again with sentence-transformers."
                )
            digest.update(weights.read_bytes())
        activation = str((config or {}).get("activation_function") or "torch.nn.Identity")
        if not activation.startswith("torch.nn."):
            raise InputError(f"native: the activation {activation} of this backbone is none of torch.nn's.")
    return digest.hexdigest()


def _loaded(stated: Sequence[_Stated]) -> nn.Sequential:
    """The modules, as sentence-transformers reads them."""
    from sentence_transformers.sentence_transformer import modules

    read = []
    for one in stated:
        kind = getattr(modules, one.kind)
        try:
            has_settings = (one.folder / "config.json").is_file()
            read.append(kind.load(str(one.folder), local_files_only=True) if has_settings else kind())
        # sentence-transformers lets through whatever a file's content breaks.
        except Exception as error:
            raise InputError(
                f"native: the {one.kind} of this backbone cannot be read ({type(error).__name__}: {error}); "
                "fetch it again."
            ) from error
    return nn.Sequential(*read).eval()
