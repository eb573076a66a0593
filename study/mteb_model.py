"""Anything that encodes texts, as a model of mteb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fusebench.benchmarks.record import Prompts


def mteb_model(
    encode: Callable[[Sequence[str]], np.ndarray], *, name: str, revision: str, prompts: Prompts | None = None
) -> Any:
    """What `mteb.evaluate` takes.

    Args:
        encode: texts to vectors, a row each.
        name: `organisation/model`, under which mteb files scores.
        revision: another one for everything that embeds otherwise, because mteb's cache asks for no more.
        prompts: put before each text; None for none.
    """
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    before = prompts or Prompts()

    class Model(AbsEncoder):
        """The encoder under mteb's protocol."""

        def __init__(self) -> None:
            self.mteb_model_meta = ModelMeta.create_empty(
                overwrites={"name": name, "revision": revision, "similarity_fn_name": ScoringFunction.COSINE}
            )

        def encode(self, inputs: Any, *, prompt_type: Any = None, **kwargs: Any) -> np.ndarray:
            """Vectors of all texts of all batches, in their order."""
            prompt = getattr(before, "text" if prompt_type is None else prompt_type.value)
            return encode([prompt + text for batch in inputs for text in batch["text"]])

    return Model()
