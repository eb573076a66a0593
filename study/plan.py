"""From what a user asks to the list of cells, everything checked before the first pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fusebench.benchmarks.record import BackboneSpec, MethodSpec, PartSpec, Spec
from fusebench.benchmarks.store import AskedSuite
from fusebench.benchmarks.suites import SUITES, suite
from fusebench.benchmarks.tasks import LoadedTask, TaskSource, find_tasks, load_task, missing_tasks
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import Source, find_backbone
from fusebench.methods.engine import BATCH_TOKENS
from fusebench.methods.grammar import Method, parse
from fusebench.methods.states import StateShape
from fusebench.study.catalogue import catalogue_names, expand
from fusebench.study.code_identity import code_sha256
from fusebench.study.environment import SOFTWARE, versions
from fusebench.study.options import Options
from fusebench.study.text_sets import TextSet, load_texts

ALL = "all"  # the whole catalogue, in the place of a method


@dataclass(frozen=True)
class Cell:
    """One method on one task, and the specification that identifies the result."""

    method: Method
    task: LoadedTask
    spec: Spec

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
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]


def make_plan(options: Options) -> Plan:
    """Looks up and loads backbone, methods and tasks.

    Raises:
        InputError: if any of them is not there or does not fit the others; nothing has been computed then.
    """
    for sentence in options.methods:
        if sentence != ALL and "native" not in sentence:
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
    tasks = tuple(load_task(one, limit=options.limit, allow_empty=options.allow_empty) for one in sources)
    fit = load_texts(options.fit, options.data_dir)
    methods, more = choose_methods(options.methods, source, backbone.shape, fit.spec.count, backbone.tokenize)
    fit_used = fit if any(method.fitted for method in methods) else None
    seeds: dict[Method, tuple[int | None, ...]] = {m: options.seeds if m.random else (None,) for m in methods}
    cells = tuple(
        Cell(method, task, _spec(options, backbone, method, task, fit_used, seed))
        for method in methods
        for seed in seeds[method]
        for task in tasks
    )
    return Plan(options, backbone, methods, tasks, fit_used, views, cells, (*notes, *more))


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
    sentences: Sequence[str],
    source: Source,
    shape: StateShape,
    fit_count: int,
    tokenize: Callable[[Sequence[str], str | None], object],
) -> tuple[tuple[Method, ...], list[str]]:
    """The distinct methods that sentences name on this backbone; the whole catalogue for `all` or none.

    Catalogue entries that a backbone cannot have (no mask token, too few layers) are left out with a note;
    the same entry asked for by name raises. `tokenize` is the backbone's; templates are tried on it.

    Raises:
        InputError: if a sentence is no method on this backbone.
    """
    asked = [
        (name, one != ALL) for one in sentences or (ALL,) for name in (catalogue_names() if one == ALL else (one,))
    ]
    chosen: dict[str, Method] = {}
    notes: list[str] = []
    for sentence, by_name in asked:
        try:
            resolved = parse(expand(sentence, source.folder)).on(shape)
            for method in resolved:
                _refuse_training(method)
                method.check(shape, fit_count)
                tokenize(["layers"], method.build_fusion(shape).template)
        except InputError as error:
            if by_name:
                raise
            notes.append(f"{sentence} is left out: {error}")
            continue
        if by_name and len(resolved) == 1 and resolved[0].name != sentence:
            notes.append(f"{sentence} is {resolved[0].name}")
        chosen.update({method.name: method for method in resolved})
    return tuple(chosen.values()), notes


def _refuse_training(method: Method) -> None:
    if method.objective is not None:
        raise InputError(
            f"{method.name} must be trained by {method.objective.name}, and this version does not train yet; "
            f"{method.fusion.name}{'(untrained)' if method.fusion.card.learned else ''} can be scored as it is."
        )


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
    options: Options, backbone: Backbone, method: Method, task: LoadedTask, fit: TextSet | None, seed: int | None
) -> Spec:
    kind = backbone.device.type
    return Spec(
        backbone=backbone_spec(backbone),
        method=method_spec(method),
        task=task.spec,
        seed=seed,
        regime="training-free",
        train=None,
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
    parts = tuple(PartSpec(kind=p.card.kind, name=p.name, params=dict(p.params)) for p in method.parts)
    return MethodSpec(name=method.name, parts=parts)
