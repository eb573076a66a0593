"""From what a user asks to the list of cells, everything checked before the first pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusebench.benchmarks.record import BackboneSpec, MethodSpec, Regime, Spec
from fusebench.benchmarks.store import AskedSuite
from fusebench.benchmarks.suites import SUITES, suite
from fusebench.benchmarks.tasks import LoadedTask, TaskSource, find_tasks, load_task, missing_tasks
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import Source, find_backbone
from fusebench.methods.engine import BATCH_TOKENS
from fusebench.methods.grammar import Method, parse
from fusebench.study import saved_methods
from fusebench.study.catalogue import catalogue_names, expand
from fusebench.study.code_identity import code_sha256
from fusebench.study.environment import SOFTWARE, versions
from fusebench.study.options import Options
from fusebench.study.processes import check_processes
from fusebench.study.saved_methods import SavedMethod
from fusebench.study.text_sets import TextSet, load_texts
from fusebench.study.training_plan import TrainingPlan, check_regime, plan_training, with_unguided

ALL = "all"  # the whole catalogue, in the place of a method


@dataclass(frozen=True)
class Cell:
    """One method on one task, and the specification that identifies the result."""

    method: Method
    task: LoadedTask
    spec: Spec
    saved: SavedMethod | None = None  # whose weights are taken as they are

    @property
    def seed(self) -> int | None:
        """None when nothing in the method is random."""
        return self.spec.seed


@dataclass(frozen=True)
class Plan:
    """A run with all its parts loaded.

    Attributes:
        notes: what a user should know: spellings that were resolved, catalogue entries left out, tasks missing.
    """

    options: Options
    backbone: Backbone
    methods: tuple[Method, ...]
    tasks: tuple[LoadedTask, ...]
    fit: TextSet | None
    views: tuple[AskedSuite, ...]
    training: TrainingPlan
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """A method of a run.

    Attributes:
        by_name: asked for itself, so that it is never left out.
        saved: the weights that were named instead of a sentence.
    """

    method: Method
    by_name: bool
    saved: SavedMethod | None = None


def make_plan(options: Options) -> Plan:
    """Looks up and loads backbone, methods and tasks.

    Raises:
        InputError: if any of them is not there or does not fit the others; nothing has been computed then.
    """
    for sentence in options.methods:
        if sentence != ALL and "native" not in sentence and _folder_of(sentence) is None:
            parse(expand(sentence, None))
    views = _views(options)
    sources, notes = _task_sources(options, views)
    source = find_backbone(options.backbone, remote_code=options.remote_code)
    backbone = Backbone(
        source,
        device=choose_device(options.device),
        dtype=options.dtype,
        max_length=options.max_length,
        remote_code=options.remote_code,
    )
    notes += check_processes(options.training.processes, options.training.regime, backbone.device)
    tasks = tuple(load_task(one, limit=options.limit, allow_empty=options.allow_empty) for one in sources)
    fit = load_texts(options.fit, options.data_dir)
    regime = options.training.regime
    chosen, notes_on_methods = choose_methods(options.methods, source, backbone, fit.spec.count, regime=regime)
    fresh, notes_on_guides = with_unguided([one.method for one in chosen if one.saved is None])
    by_name = {one.method: one.by_name for one in chosen}
    training, fresh, notes_on_training = plan_training(options, fresh, tasks, by_name)
    methods = [Chosen(method, True) for method in fresh] + [one for one in chosen if one.saved]
    fit_used = fit if any(one.method.fitted for one in methods) else None
    cells = tuple(
        Cell(one.method, task, _spec(options, backbone, one, task, fit_used, training, seed), one.saved)
        for one in methods
        for seed in _seeds(one, options.seeds)
        for task in tasks
    )
    every_note = (*notes, *notes_on_methods, *notes_on_guides, *notes_on_training)
    distinct = tuple(dict.fromkeys(one.method for one in methods))
    return Plan(options, backbone, distinct, tasks, fit_used, views, training, cells, every_note)


def _seeds(one: Chosen, asked: tuple[int, ...]) -> tuple[int | None, ...]:
    if one.saved is not None:
        return (one.saved.seed,)
    return asked if one.method.random else (None,)


def _views(options: Options) -> tuple[AskedSuite, ...]:
    names = options.suites or (() if options.tasks else ("embedded",))
    views = [AskedSuite(name, name, suite(name).tasks) for name in dict.fromkeys(names)]
    if options.tasks:
        chosen = tuple(dict.fromkeys(options.tasks))
        views.append(AskedSuite("tasks " + " ".join(chosen), ", ".join(chosen), chosen))
    if len(views) > 1:
        every = tuple(dict.fromkeys(task for view in views for task in view.tasks))
        views.append(AskedSuite(" + ".join(v.name for v in views), " + ".join(v.title for v in views), every))
    return tuple(views)


def _task_sources(options: Options, views: Sequence[AskedSuite]) -> tuple[list[TaskSource], list[str]]:
    names = list(dict.fromkeys(task for view in views for task in view.tasks))
    notes: list[str] = []
    if options.available_only and options.data_dir is None:
        raise InputError("--available-only looks at the folders of --data-dir DIR, and none is given.")
    with_folders = options.data_dir is not None and options.data_dir.is_dir()
    if with_folders and (missing := missing_tasks(names, options.data_dir)):
        in_suites = {task for known in SUITES.values() for task in known.tasks}
        # A misspelt name is refused as such, not listed as missing.
        find_tasks([name for name in missing if name not in in_suites], options.data_dir)
        if not options.available_only or len(missing) == len(names):
            others = ", or run the others with --available-only" if len(missing) < len(names) else ""
            raise InputError(
                f"--data-dir {options.data_dir} lacks {len(missing)} of {len(names)} tasks: {', '.join(missing)}; "
                f"add a folder for each{others}."
            )
        notes.append(f"left out, because --data-dir lacks them: {', '.join(missing)}")
        names = [name for name in names if name not in missing]
    return find_tasks(names, options.data_dir), notes


def choose_methods(
    sentences: Sequence[str], source: Source, backbone: Backbone, fit_count: int, *, regime: Regime = "frozen"
) -> tuple[tuple[Chosen, ...], list[str]]:
    """The distinct methods that sentences name on this backbone; the regime's whole catalogue for `all` or none.

    Catalogue entries that a backbone cannot have (no mask token, too few layers) are left out with a note;
    the same entry asked for by name raises. A folder of a saved method stands for its sentence.

    Raises:
        InputError: if a sentence is no method on this backbone, or cannot be trained in this regime.
    """
    asked = [
        (name, one != ALL)
        for one in sentences or (ALL,)
        for name in (catalogue_names(regime) if one == ALL else (one,))
    ]
    chosen: dict[tuple[str, str | None], Chosen] = {}
    notes: list[str] = []
    for sentence, by_name in asked:
        try:
            saved, meant = _saved(sentence, backbone)
            resolved = parse(expand(meant, source.folder)).on(backbone.shape)
            for method in resolved:
                if saved is None:
                    check_regime(method, regime, backbone)
                method.check(backbone.shape, fit_count)
                backbone.tokenize(["layers"], method.build_fusion(backbone.shape).template)
        except InputError as error:
            if by_name:
                raise
            notes.append(f"{sentence} is left out: {error}")
            continue
        if by_name and len(resolved) == 1 and resolved[0].name != sentence:
            notes.append(f"{sentence} is {resolved[0].name}")
        for method in resolved:
            key = method.name, saved.weights_sha256 if saved else None
            before = chosen.get(key)
            chosen[key] = Chosen(method, by_name or (before is not None and before.by_name), saved)
    return tuple(chosen.values()), notes


def _folder_of(sentence: str) -> str | None:
    """The folder of a saved method that a sentence starts with instead of a fusion; its name may hold a + itself."""
    pieces = sentence.split("+")
    for count in range(len(pieces), 0, -1):
        folder = "+".join(pieces[:count]).strip()
        if folder and saved_methods.is_saved(Path(folder).expanduser()):
            return folder
    head = re.split(r"[+(]", sentence, maxsplit=1)[0]
    return sentence if "/" in head or "\\" in head else None


def _saved(sentence: str, backbone: Backbone) -> tuple[SavedMethod | None, str]:
    """The saved method that a sentence starts with, and the sentence with its name in the place of the folder.

    Raises:
        InputError: if the folder holds none, or one that was trained on another backbone.
    """
    folder = _folder_of(sentence)
    if folder is None:
        return None, sentence
    saved = saved_methods.load(Path(folder).expanduser())
    trained_on, here = saved.identity["backbone"], backbone_spec(backbone).model_dump(mode="json")
    if any(trained_on[key] != here[key] for key in ("weights_sha256", "tokenizer_sha256", "blocks", "dim")):
        raise InputError(f"{folder} was trained on {trained_on['name']}, whose files differ from {here['name']}'s.")
    return saved, saved.method.name + sentence.strip()[len(folder) :]


def choose_device(asked: str) -> str:
    """The torch device that `--device` names; `auto` is CUDA, then MPS, then the processor.

    Raises:
        InputError: if there is no such device.
    """
    import torch

    has_mps = torch.backends.mps.is_available()
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    kind, _, number = asked.partition(":")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", asked):
        raise InputError(f"--device {asked}: choose auto, cpu, cuda, cuda:0 (or another number) or mps.")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}[kind]
    if int(number or 0) >= there:
        raise InputError(f"--device {asked}: torch sees no such device here; --device auto takes what there is.")
    return asked


def _spec(
    options: Options,
    backbone: Backbone,
    one: Chosen,
    task: LoadedTask,
    fit: TextSet | None,
    training: TrainingPlan,
    seed: int | None,
) -> Spec:
    kind, method, saved = backbone.device.type, one.method, one.saved
    planned = training.methods.get(method.stem) if method.trained and saved is None else None
    return Spec(
        backbone=backbone_spec(backbone),
        method=method_spec(method),
        task=task.spec,
        seed=seed,
        regime=saved.regime if saved else options.training.regime if planned else "training-free",
        train=saved.train if saved else planned.spec if planned else None,
        weights_sha256=saved.weights_sha256 if saved else None,
        fit=fit.spec if fit is not None and method.fitted else None,
        prompts=options.prompts,
        max_length=backbone.limit.tokens,
        max_length_source=backbone.limit.source,
        dtype=backbone.dtype,
        device=kind,
        padding_side=backbone.padding_side,
        batch_tokens=options.batch_tokens or BATCH_TOKENS[kind],
        limit=options.limit,
        software=versions(SOFTWARE),
        code=code_sha256(tuple(part.card.part.__module__ for part in method.parts)),
    )


def backbone_spec(backbone: Backbone) -> BackboneSpec:
    """What a record says of the backbone."""
    return BackboneSpec(
        name=backbone.source.name,
        revision=backbone.source.revision,
        weights_sha256=backbone.source.weights_sha256,
        tokenizer_sha256=backbone.source.tokenizer_sha256,
        architecture=backbone.architecture,
        blocks=backbone.shape.blocks,
        dim=backbone.shape.dim,
        final_norm=backbone.final_norm,
        remote_code=backbone.remote_code,
    )


def method_spec(method: Method) -> MethodSpec:
    """What a record says of the method."""
    return MethodSpec(name=method.name, parts=saved_methods.part_specs(method))
