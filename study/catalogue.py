"""The catalogue: the named methods that a bare `--methods` runs, in each training regime."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fusebench.benchmarks.record import Regime
from fusebench.errors import InputError
from fusebench.methods.grammar import parse
from fusebench.methods.native_pooling import native_sentence
from fusebench.methods.registry import cards, suggestion
from fusebench.methods.spelling import read_part, split

_NATIVE = re.compile(r"native(-[0-9a-f]{10})?")  # the second where modules of the backbone's folder are read


@dataclass(frozen=True)
class Entry:
    """A named method.

    Attributes:
        name: what users may write for it.
        sentence: the method in full.
        about: one line for `list methods`.
        regime: what is trained before it can be scored: nothing, the method's own weights on a frozen backbone, or
            the backbone too.
    """

    name: str
    sentence: str
    about: str
    regime: Regime = "training-free"


_TRAINING_FREE = (
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

# Batch-softmax reads pairs, triplets and scored pairs, so that all of these can be trained on every data set.
_FROZEN = tuple(
    Entry(name, f"{fusion}+batch-softmax", about, "frozen")
    for name, fusion, about in (
        ("layer-attention", "layer-attention", "first tokens of all layers attend to the means of all layers"),
        ("layer-attention-single-query", "layer-attention(query=last)", "the same, asked by the last layer alone"),
        (
            "layer-attention-sqrt-d",
            "layer-attention(scale=sqrt-dim)",
            "the same, scores divided by the root of the width",
        ),
        ("layer-attention-no-activation", "layer-attention(activation=none)", "the same without RReLU"),
        (
            "layer-attention-no-concat",
            "layer-attention(concat=false)",
            "the same without the last first token beside",
        ),
        ("hire", "hire", "layers scored by a bidirectional GRU, their sum fused with the last (HIRE)"),
        ("bigru", "bigru", "HIRE's last step on the last layer alone, the control for hire"),
        ("scalar-mix", "scalar-mix", "one softmax weight a layer and one scale (ELMo)"),
        ("weighted-layers", "weighted-layers", "one free weight a layer"),
        ("cls-lstm", "cls-lstm", "an LSTM reads the first tokens from low to high"),
        ("cls-attention", "cls-attention", "a learned query attends to the first tokens of layers"),
        ("dwatt", "dwatt", "depth-wise attention over the layers of each token (DWAtt)"),
        ("multi-layer-latents", "multi-layer-latents", "learned latents attend to the layers"),
        ("latent-attention", "latent-attention", "tokens of the last layer attend to learned latents (NV-Embed)"),
        ("set-encoder", "set-encoder", "layers as a set, each through one network (ILSE)"),
        ("layer-graph", "layer-graph", "layers as nodes of a graph, with messages (ILSE)"),
        ("squeeze-gate", "squeeze-gate", "each feature weighs its layers (S2Sent)"),
        ("mlp", "mlp", "two linear maps on the mean, the control for layer-attention"),
        ("transformer-block", "transformer-block", "one more block, the control for fusions that read tokens"),
    )
)

_FINETUNE = tuple(
    Entry(name, sentence, about, "finetune")
    for name, sentence, about in (
        ("mean-batch-softmax", "mean+batch-softmax", "the mean, trained by the batch-softmax contrastive loss"),
        ("cls-batch-softmax", "cls+batch-softmax", "first token, trained likewise"),
        ("layer-attention-batch-softmax", "layer-attention+batch-softmax", "layer-wise attention, trained likewise"),
        ("hire-batch-softmax", "hire+batch-softmax", "HIRE, trained likewise"),
        ("mean-simcse-sup", "mean+simcse-sup", "the mean, trained on triplets (supervised SimCSE)"),
        ("cls-simcse-sup", "cls+simcse-sup", "first token, trained on triplets (supervised SimCSE)"),
        ("layer-attention-simcse-sup", "layer-attention+simcse-sup", "layer-wise attention, trained on triplets"),
        ("mean-mdg", "mean+batch-softmax+mdg", "guided: attention maps should differ"),
        ("mean-pdg", "mean+batch-softmax+pdg", "guided: positions should not be attended to alike"),
        ("mean-mdg-pdg", "mean+batch-softmax+mdg+pdg", "both guides"),
        ("mean-example-shuffling", "mean+batch-softmax+example-shuffling", "batches of neighbours"),
        ("mean-two-stage", "mean+batch-softmax+mse-cosine", "contrastive first, then squared error on graded pairs"),
        ("cls-simcse", "cls+simcse", "first token, trained on bare sentences (unsupervised SimCSE)"),
        ("mean-cosent", "mean+cosent", "the mean, trained on the order of graded pairs (CoSENT)"),
        ("mean-triplet", "mean+triplet", "the mean, trained on triplets with a margin"),
    )
)

CATALOGUE = (*_TRAINING_FREE, *_FROZEN, *_FINETUNE)


def catalogue_names(regime: Regime = "frozen") -> list[str]:
    """The names of what needs no training, and of what is trained in this regime."""
    return [entry.name for entry in CATALOGUE if entry.regime in ("training-free", regime)]


def recorded_name(sentence: str) -> str:
    """The name that records give a method written so; the sentence itself where it is no method.

    `hire` is `hire+batch-softmax`: what a run completes, other commands understand.
    """
    try:
        return parse(expand(sentence, None)).name
    except InputError:
        return sentence


def expand(sentence: str, folder: Path | None) -> str:
    """Puts full sentences in the place of catalogue names and of `native`, and the objective where one is due.

    A fusion of the frozen regime, by its own name or that of a variant, takes its objective from the catalogue
    unless the sentence has one or says `untrained`: `hire(hidden=64)+whiten` is
    `hire(hidden=64)+batch-softmax+whiten`.

    Args:
        sentence: as written by the user, e.g. `second-to-last+whiten`.
        folder: of the backbone, for `native`; None leaves `native` as it is.

    Raises:
        InputError: if the sentence is malformed or holds an unknown name, or the folder states no pooling.
    """
    # Names of the frozen regime stand for the fusion here; `_completed` adds its objective.
    named = {
        entry.name: split(entry.sentence, "+")[0] if entry.regime == "frozen" else entry.sentence
        for entry in CATALOGUE
        if entry.name != _name(entry.sentence)
    }
    written = split(sentence, "+") if sentence.strip() else []
    native = "native"
    if folder is not None and any(_NATIVE.fullmatch(part) for part in written):
        native = native_sentence(folder)  # makes its name known too, as records have it
    for part in written:
        _check_name(part, named)
    parts = [piece for part in written for piece in split(named.get(part, part), "+")]
    parts = [native if part == "native" else part for part in parts]
    _check_native(parts)
    return "+".join(_completed(parts, sentence))


def _check_native(parts: list[str]) -> None:
    """Modules that a backbone brings along are read as they are."""
    objectives = {card.name for card in cards("objective")}
    brought = [part for part in parts if part != "native" and _NATIVE.fullmatch(part)]
    if brought and objectives.intersection(_name(part) for part in parts):
        raise InputError(
            f"{brought[0]}: the modules that this backbone brings along are not trained here; train a pooling, as in "
            "mean+batch-softmax."
        )


def _check_name(part: str, named: dict[str, str]) -> None:
    name = _name(part)
    known = [*(entry.name for entry in CATALOGUE), *(card.name for card in cards())]
    if name not in known:
        raise InputError(f"no method '{name}'.{suggestion(name.lower(), dict.fromkeys(known))}")
    if name in named and part != name:
        raise InputError(f"'{part}': {name} stands for {named[name]} and takes nothing more; write that instead.")


def _completed(parts: list[str], sentence: str) -> list[str]:
    """The parts; a learned fusion that nothing trains gets the objective that the catalogue has for it."""
    fusions, objectives = ({card.name for card in cards(kind)} for kind in ("fusion", "objective"))
    names = [_name(part) for part in parts]
    due = {_name(entry.sentence): split(entry.sentence, "+")[1:] for entry in _FROZEN}
    found = [place for place, name in enumerate(names) if name in fusions]
    if len(found) != 1 or names[found[0]] not in due or objectives.intersection(names):
        return parts
    (place,) = found
    fusion, _ = read_part(parts[place], sentence)
    return parts if fusion.untrained else [*parts[: place + 1], *due[fusion.name], *parts[place + 1 :]]


def _name(part: str) -> str:
    return re.split("[+(@]", part, maxsplit=1)[0].strip()
