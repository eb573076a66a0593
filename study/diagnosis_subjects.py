"""What a diagnosis looks at: methods by the backbone that they read, trained ones as they lie on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fusebench.benchmarks.diagnosis import DiagnosedMethod, TrainedWeights
from fusebench.benchmarks.record import digest
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.grammar import Method, Part
from fusebench.study import saved_methods
from fusebench.study.plan import Chosen, backbone_spec, choose_methods, method_spec
from fusebench.study.saved_methods import SavedMethod


@dataclass(frozen=True, eq=False)
class Subject:
    """Methods that read one backbone.

    Attributes:
        tuned: the training that fine-tuned the backbone; None: it is the frozen one.
    """

    tuned: SavedMethod | None
    methods: tuple[Chosen, ...]


def choose_subjects(
    sentences: Sequence[str], out: Path, backbone: Backbone, fit_count: int, *, every_training: bool
) -> tuple[list[Subject], list[str]]:
    """The frozen backbone with its methods, then each fine-tuned one with its own and those that need no training.

    Args:
        sentences: methods; a trained one stands for each of its trainings in `<out>/trained`, a folder for itself.
        out: results folder.
        backbone: the frozen one.
        fit_count: texts that transforms are fitted on.
        every_training: whether all trainings of this backbone in `<out>/trained` count as asked for.

    Returns:
        The subjects, and notes on trainings that were left out.

    Raises:
        InputError: a sentence is no method of this backbone, or a trained one that no training has made.
    """
    trainings, notes = _trainings(out, backbone)
    chosen: tuple[Chosen, ...] = ()
    said: list[str] = []
    if sentences:  # none at all would mean the whole catalogue
        chosen, said = choose_methods(sentences, backbone.source, backbone, fit_count, regime="finetune")
    wanted = [found for one in chosen for found in _with_weights(one, trainings, out)]
    if every_training:
        if not trainings:
            raise InputError(f"--trained: {out / 'trained'} holds no training of {backbone.source.name}.")
        wanted += [Chosen(saved.method, True, saved) for saved in trainings]
        said += notes
    distinct = {(one.method.name, one.saved and one.saved.weights_sha256): one for one in wanted}
    methods = list(distinct.values())
    free = [one for one in methods if one.saved is None]
    tuned = {one.saved.weights_sha256: one.saved for one in methods if one.saved and one.saved.regime == "finetune"}
    frozen = [one for one in methods if one.saved is None or one.saved.regime != "finetune"]
    subjects = [Subject(None, tuple(frozen))] if frozen else []
    for sha256, saved in tuned.items():
        own = [one for one in methods if one.saved and one.saved.weights_sha256 == sha256]
        subjects.append(Subject(saved, (*free, *own)))
    return subjects, said


def _trainings(out: Path, backbone: Backbone) -> tuple[list[SavedMethod], list[str]]:
    """The trainings of this backbone, and why others are left out."""
    here = backbone_spec(backbone).model_dump(mode="json")
    found, notes = [], []
    for folder in sorted((out / "trained").glob("*")):
        if not saved_methods.is_saved(folder):
            continue
        try:
            saved = saved_methods.load(folder)
        except InputError as error:
            notes.append(f"left out: {error}")
            continue
        trained_on = saved.identity["backbone"]
        if all(trained_on[key] == here[key] for key in ("weights_sha256", "tokenizer_sha256")):
            found.append(saved)
        else:
            notes.append(f"left out: {folder.name} was trained on another backbone, {trained_on['name']}")
    return sorted(found, key=lambda saved: (saved.method.name, saved.seed)), notes


def _with_weights(one: Chosen, trainings: Iterable[SavedMethod], out: Path) -> list[Chosen]:
    """The method with the weights of each of its trainings; one that needs none, or has them, stays as it is."""
    if not one.method.trained or one.saved is not None:
        return [one]
    found = [Chosen(one.method, True, saved) for saved in trainings if saved.method == one.method.stem]
    if not found and one.by_name:
        raise InputError(
            f"{one.method.name} has no training on this backbone in {out / 'trained'}: run_bench.py --methods trains "
            "it, and --out names the folder that it was trained into."
        )
    return found


def described(one: Chosen, tuned: SavedMethod | None, backbone: Backbone) -> DiagnosedMethod:
    """What a diagnosis says of a method on a backbone."""
    method, layers = one.method, one.method.build_fusion(backbone.shape).layers
    has_layer = "layer" in method.fusion.card.defaults and len(layers) == 1
    return DiagnosedMethod(
        method=method_spec(method),
        trained=trained_weights(one.saved),
        backbone=trained_weights(tuned),
        sweep=_sweep(method).name if has_layer else None,
        layer=layers[0] if has_layer else None,
    )


def trained_weights(saved: SavedMethod | None) -> TrainedWeights | None:
    """What a diagnosis says of weights that a training left."""
    if saved is None:
        return None
    return TrainedWeights(
        method=saved.method.name,
        seed=saved.seed,
        regime=saved.regime,
        training_id=digest(dict(saved.identity)),
        weights_sha256=saved.weights_sha256,
        group=digest({key: value for key, value in saved.identity.items() if key != "seed"}),
    )


def _sweep(method: Method) -> Method:
    """The method with its fusion's default layer: what all layers of a sweep have in common."""
    fusion = method.fusion
    params = {key: value for key, value in fusion.params if key != "layer"}
    return replace(method, fusion=Part.of(fusion.name, params, fusion.untrained))
