"""How layer states become an embedding. Importing this package registers every part it holds."""

from fusebench.methods import (
    all_but_the_top,
    attention_guides,
    layer_mix,
    prompt_pooling,
    sbert_wk,
    scaling,
    token_pooling,
    whitening,
)

__all__ = [
    "all_but_the_top",
    "attention_guides",
    "layer_mix",
    "prompt_pooling",
    "sbert_wk",
    "scaling",
    "token_pooling",
    "whitening",
]
