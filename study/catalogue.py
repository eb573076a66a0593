"""The catalogue: the named methods that a bare `--methods` runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fusebench.errors import InputError
from fusebench.methods.grammar import split
from fusebench.methods.pooling_config import native_sentence
from fusebench.methods.registry import cards, suggestion


@dataclass(frozen=True)
class Entry:
    """A named method.

    Attributes:
        name: what users may write for it.
        sentence: the method in full.
        about: one line for `list methods`.
        regime: what it needs before it can be scored.
    """

    name: str
    sentence: str
    about: str
    regime: str = "training-free"


CATALOGUE = (
    Entry("native", "native", "the pooling that the backbone's folder states for itself"),
    Entry("cls", "cls", "first token of the last layer"),
    Entry("mean", "mean", "mean over tokens of the last layer"),
    Entry("max", "max", "element-wise maximum over tokens of the last layer"),
    Entry("mean-sqrt-len", "mean-sqrt-len", "sum over tokens / root of their number; cosine equals the mean's"),
    Entry("weighted-mean", "weighted-mean", "mean over tokens weighted by position (SGPT)"),
    Entry("last-token", "last-token", "last real token of the last layer"),
    Entry("layer-sweep", "mean@each", "mean over tokens of every single layer, a row each"),
    Entry("cls-sweep", "cls@each", "first token of every single layer, a row each"),
    Entry("second-to-last", "mean(layer=-2)", "mean over tokens of the last layer but one (bert-as-service)"),
    Entry("first-last", "first-last", "average of layers 1 and L"),
    Entry("first-last-0", "first-last(first=0)", "average of embedding output and layer L (SimCSE as published)"),
    Entry("last-k-mean", "last-k-mean", "average of the last four layers"),
    Entry("last-k-sum", "last-k-sum", "sum of the last four layers; cosine equals the average's"),
    Entry("last-k-concat", "last-k-concat", "the last four layers side by side"),
    Entry("layer-mean", "layer-mean", "average of all layers"),
    Entry("max-cls", "max-cls", "element-wise maximum over layers of their first tokens (MaxPoolBERT)"),
    Entry("max-mean", "max-mean", "element-wise maximum over layers of their means"),
    Entry("sbert-wk", "sbert-wk", "layers weighted by novelty and alignment, tokens by variance (SBERT-WK)"),
    Entry("prompt-mask", "prompt-mask", "the mask's vector in 'This sentence of \"X\" means [MASK].' (PromptBERT)"),
    Entry("mean-whitened", "mean+whiten", "the mean, whitened"),
    Entry("mean-whitened-256", "mean+whiten(k=256)", "the mean, whitened to 256 dimensions"),
    Entry("bert-whitening", "first-last+whiten(k=256)", "first-last average whitened to 256 dimensions (Su et al.)"),
    Entry("cls-whitened", "cls+whiten", "first token, whitened"),
    Entry("layer-mean-whitened", "layer-mean+whiten", "average of all layers, whitened"),
    Entry("mean-abtt", "mean+abtt", "the mean without its leading common directions (all-but-the-top)"),
    Entry("mean-standardized", "mean+standardize", "the mean with every dimension at unit variance"),
)


def expand(sentence: str, folder: Path | None) -> str:
    """Puts full sentences in the place of catalogue names and of `native`.

    Args:
        sentence: as written by the user, e.g. `second-to-last+whiten`.
        folder: of the backbone, for `native`; None leaves `native` as it is.

    Raises:
        InputError: if the sentence is malformed or holds an unknown name, or the folder states no pooling.
    """
    named = {entry.name: entry.sentence for entry in CATALOGUE if entry.name != entry.sentence}
    written = split(sentence, "+") if sentence.strip() else []
    for part in written:
        _check_name(part, named)
    parts = [named.get(part, part) for part in written]
    if folder is not None:
        parts = [native_sentence(folder) if part == "native" else part for part in parts]
    return "+".join(parts)


def _check_name(part: str, named: dict[str, str]) -> None:
    name = re.split("[(@]", part, maxsplit=1)[0].strip()
    known = [*catalogue_names(), *(card.name for card in cards())]
    if name not in known:
        raise InputError(f"no method '{name}'.{suggestion(name.lower(), dict.fromkeys(known))}")
    if name in named and part != name:
        raise InputError(f"'{part}': {name} stands for {named[name]} and takes nothing more; write that instead.")


def catalogue_names() -> list[str]:
    """Every name in the catalogue."""
    return [entry.name for entry in CATALOGUE]
