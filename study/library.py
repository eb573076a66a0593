"""One method as an object that other libraries know how to use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from fusebench.benchmarks.atomic import slug
from fusebench.benchmarks.record import digest
from fusebench.errors import InputError
from fusebench.methods.encoder import Encoder
from fusebench.methods.registry import load_plugins
from fusebench.study import text_sets
from fusebench.study.code_identity import code_sha256
from fusebench.study.loading import LoadedMethod, load_method
from fusebench.study.mteb_model import mteb_model
from fusebench.study.plan import backbone_spec


class Embedder:
    """Texts to vectors by one method, as other libraries ask for it.

    `encode` is what sentence-transformers' utilities call, `embed_documents` and `embed_query` are LangChain's,
    `get_text_embedding` and its like LlamaIndex's, `fit` and `transform` scikit-learn's, and `as_mteb` is for
    `mteb.evaluate`. Texts seen before are not run again.

    Args:
        loaded: the method with its weights in place.
    """

    def __init__(self, loaded: LoadedMethod) -> None:
        self._loaded = loaded
        self._encoder = Encoder(loaded.backbone, loaded.method, fusion=loaded.fusion, fit_texts=loaded.fit.texts)

    def __repr__(self) -> str:
        return f"Embedder({self.sentence!r}, {self._loaded.backbone.source.name!r})"

    @property
    def sentence(self) -> str:
        """The method's canonical sentence."""
        return self._loaded.method.name

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        convert_to_tensor: bool = False,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Any:
        """Float32 vectors, a row a text; of a bare string, its vector.

        Args:
            texts: one or many.
            prompt: put before each.
            prompt_name: there are no named prompts here, so only None will do.
            truncate_dim: how many coordinates are kept.
            convert_to_tensor: a tensor in the place of an array.
            batch_size: without effect, because batches are planned by tokens; nor does it change any vector.
            show_progress_bar: without effect.

        Raises:
            InputError: if a prompt is asked for by name.
        """
        if prompt_name is not None:
            raise InputError(f"there is no prompt named '{prompt_name}': give the text itself as prompt.")
        alone = isinstance(texts, str)
        asked = [texts] if isinstance(texts, str) else list(texts)
        vectors = self._encoder.encode([(prompt or "") + text for text in asked])[:, :truncate_dim]
        found = torch.from_numpy(vectors.copy()) if convert_to_tensor else vectors
        return found[0] if alone else found

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """LangChain's name for many texts."""
        vectors: list[list[float]] = self.encode(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """LangChain's name for one text; it is embedded like any other."""
        return self.embed_documents([text])[0]

    def get_text_embedding(self, text: str) -> list[float]:
        """LlamaIndex's name for one text."""
        return self.embed_query(text)

    def get_text_embedding_batch(self, texts: Sequence[str]) -> list[list[float]]:
        """LlamaIndex's name for many texts."""
        return self.embed_documents(texts)

    def get_query_embedding(self, query: str) -> list[float]:
        """LlamaIndex's name for a query; it is embedded like any other text."""
        return self.embed_query(query)

    def fit(self, texts: Any = None, y: Any = None) -> Embedder:
        """Nothing is left to learn."""
        return self

    def transform(self, texts: Iterable[str]) -> Float[np.ndarray, "texts dim"]:
        """scikit-learn's name for `encode`; texts may be a list, an array or a column."""
        vectors: np.ndarray = self.encode([str(text) for text in texts])
        return vectors

    def fit_transform(self, texts: Iterable[str], y: Any = None) -> Float[np.ndarray, "texts dim"]:
        """The same."""
        return self.transform(texts)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """There is nothing that a search over parameters could set."""
        return {}

    def __sklearn_clone__(self) -> Embedder:
        """Itself: it never changes, and a second copy of the backbone would be a waste."""
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="transformer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            requires_fit=False,
            input_tags=InputTags(two_d_array=False, string=True),
        )

    def as_mteb(self) -> Any:
        """A model for `mteb.evaluate`; its revision stands for everything that the vectors depend on."""
        loaded = self._loaded
        parts = tuple(part.card.part.__module__ for part in loaded.method.parts)
        depends = {
            "method": loaded.method.name,
            "backbone": backbone_spec(loaded.backbone).model_dump(mode="json"),
            "weights": loaded.saved.weights_sha256 if loaded.saved else None,
            "fit": loaded.fit.spec.sha256 if loaded.method.fitted else None,
            "max_length": loaded.backbone.limit.tokens,
            "dtype": loaded.backbone.dtype,
            "code": code_sha256(parts),
        }
        name = f"fusebench/{slug(loaded.backbone.source.name)}__{slug(loaded.method.name)}"
        return mteb_model(self.encode, name=name, revision=digest(depends))


def load_embedder(
    method: str, backbone: str | None, *, device: str, max_length: int | None, fit: str | None, data_dir: Path | None
) -> Embedder:
    """See `fusebench.load`."""
    load_plugins()
    texts = text_sets.DEFAULT if fit is None else fit
    return Embedder(load_method(method, backbone, device=device, max_length=max_length, fit=texts, data_dir=data_dir))
