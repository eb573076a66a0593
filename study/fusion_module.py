"""A fusion as a module of sentence-transformers; an exported model brings this file along."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sentence_transformers.sentence_transformer.modules import Module
from torch import Tensor

from fusebench.methods.parts import Fusion
from fusebench.methods.states import LayerStates, StateShape

if TYPE_CHECKING:
    from typing import Self  # an exported model may meet an older Python


class FusionModule(Module):
    """Follows a Transformer that puts out the states of all layers; a subclass names the fusion.

    Args:
        blocks: of the transformer.
        dim: of its states.
        hyperparameters: of the fusion.
    """

    part: ClassVar[type[Fusion]]
    config_keys: list[str] = ["blocks", "dim", "hyperparameters"]  # noqa: RUF012  # as the base class has it

    def __init__(self, blocks: int, dim: int, hyperparameters: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.blocks, self.dim, self.hyperparameters = blocks, dim, hyperparameters
        self.fusion = self.part(StateShape(blocks, dim), **hyperparameters)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds the vectors `[batch, out]` of the texts as `sentence_embedding`."""
        hidden: tuple[Tensor, ...] = tuple(features["all_layer_embeddings"])
        states = LayerStates(hidden, features["attention_mask"].bool())
        return {**features, "sentence_embedding": self.fusion(states)}

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return self.fusion.out_dim

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Writes what `load` reads; a model that was loaded from a folder takes its sources along."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        if type(self).__module__.startswith("transformers_modules."):
            # sentence-transformers copies them beside the weights, and looks for them one folder above.
            for source in Path(inspect.getfile(type(self))).parent.glob("[!_]*.py"):
                shutil.copy(source, Path(output_path).parent)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", *_: Any, **settings: Any) -> Self:
        """Reads configuration and weights from a folder or the hub."""
        hub = ("token", "cache_folder", "revision", "local_files_only")
        where = {"subfolder": subfolder, **{name: settings[name] for name in hub if name in settings}}
        module = cls(**cls.load_config(model_name_or_path, **where))
        return cls.load_torch_weights(model_name_or_path, model=module, **where)
