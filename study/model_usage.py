"""How an exported model is used: what reads its folder, and with which code."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub import ModelCard

_SENTENCE_TRANSFORMERS = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}"{trust}){here}
vectors = model.encode(["a text", "another one"])"""

_ONNXRUNTIME = """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = {folder}
tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")  # cuts and pads
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
rows = tokenizer.encode_batch(["a text", "another one"])
inputs = {{"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}}
(vectors,) = session.run(None, {{name: np.array(values) for name, values in inputs.items()}})"""
_HERE = "  # this folder"


@dataclass(frozen=True)
class Usage:
    """How a folder is read.

    Attributes:
        package: what reads it.
        made_of: what it is made of, behind "exported".
        opening: what loads it, with the folder as `{folder}`, for the terminal.
        tags: of the model card, its library first.
    """

    package: str
    made_of: str
    opening: str
    tags: tuple[str, ...]

    def code(self, name: str, *, on_hub: bool = False) -> str:
        """That embeds two texts.

        Args:
            name: of the folder, or of the repository.
            on_hub: whether it is fetched from there.
        """
        if self.package == "onnxruntime":
            fetched = f'huggingface_hub.snapshot_download("{name}")' if on_hub else f'"{name}"{_HERE}'
            return "import huggingface_hub\n" * on_hub + _ONNXRUNTIME.format(folder=fetched)
        trust = ", trust_remote_code=True" * ("custom_code" in self.tags)
        return _SENTENCE_TRANSFORMERS.format(name=name, trust=trust, here="" if on_hub else _HERE)


STOCK = Usage(
    package="sentence-transformers",
    made_of="with the modules of\nsentence-transformers alone",
    opening="SentenceTransformer({folder!r}) loads it",
    tags=("sentence-transformers",),
)
OWN_CODE = Usage(
    package="sentence-transformers",
    made_of="as a module of its own\nbetween those of sentence-transformers. Its sources are the `.py` files of this "
    "folder;\nthey need no FuseBench and run only where you trust them",
    opening="SentenceTransformer({folder!r}, trust_remote_code=True) loads it",
    tags=("sentence-transformers", "custom_code"),
)
ONNX = Usage(
    package="onnxruntime",
    made_of="as one ONNX graph\nfrom token ids to vectors",
    opening="its README.md says how onnxruntime embeds with it",
    tags=("onnx",),
)


def hub_card(card: str, repo: str) -> str:
    """A model card of ours as it reads on the hub, where the model goes by another name and is fetched."""
    name = ModelCard(card).data.get("model_name") or ""
    for usage in (STOCK, OWN_CODE, ONNX):
        card = card.replace(usage.code(name), usage.code(repo, on_hub=True))
    return card
