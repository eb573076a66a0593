"""How an exported model is used: what reads its folder, and with which code."""

from __future__ import annotations

from dataclasses import dataclass

_SENTENCE_TRANSFORMERS = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}"{trust})  # this folder
vectors = model.encode(["a text", "another one"])"""

_ONNXRUNTIME = """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{name}/tokenizer.json")  # this folder; it cuts and pads
session = onnxruntime.InferenceSession("{name}/model.onnx")
rows = tokenizer.encode_batch(["a text", "another one"])
inputs = {{"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}}
(vectors,) = session.run(None, {{name: np.array(values) for name, values in inputs.items()}})"""


@dataclass(frozen=True)
class Usage:
    """How a folder is read.

    Attributes:
        package: what reads it.
        made_of: what it is made of, behind "exported".
        code: that embeds two texts, with the folder's name as `{name}`.
        opening: what loads it, with the folder as `{folder}`, for the terminal.
        tags: of the model card.
    """

    package: str
    made_of: str
    code: str
    opening: str
    tags: tuple[str, ...]


STOCK = Usage(
    package="sentence-transformers",
    made_of="with the modules of\nsentence-transformers alone",
    code=_SENTENCE_TRANSFORMERS.replace("{trust}", ""),
    opening="SentenceTransformer({folder!r}) loads it",
    tags=("sentence-transformers",),
)
OWN_CODE = Usage(
    package="sentence-transformers",
    made_of="as a module of its own\nbetween those of sentence-transformers. Its sources are the `.py` files of this "
    "folder;\nthey need no FuseBench and run only where you trust them",
    code=_SENTENCE_TRANSFORMERS.replace("{trust}", ", trust_remote_code=True"),
    opening="SentenceTransformer({folder!r}, trust_remote_code=True) loads it",
    tags=("sentence-transformers", "custom_code"),
)
ONNX = Usage(
    package="onnxruntime",
    made_of="as one ONNX graph\nfrom token ids to vectors",
    code=_ONNXRUNTIME,
    opening="its README.md says how onnxruntime embeds with it",
    tags=("onnx",),
)
