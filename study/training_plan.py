"""What a run trains: rows, budget and checks of every method that has an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fusebench.benchmarks.record import TrainingSpec
from fusebench.benchmarks.tasks import LoadedTask
from fusebench.errors import InputError
from fusebench.methods.backbone import Backbone
from fusebench.methods.grammar import Method
from fusebench.methods.recipe import Recipe
from fusebench.study.code_identity import training_code_sha256
from fusebench.study.dev_rows import check_dev, load_dev
from fusebench.study.leak_policy import LeakReport, check_leaks
from fusebench.study.options import Options
from fusebench.study.training_data import RowSource, TrainRows


@dataclass(frozen=True)
class MethodTraining:
    """How one method is trained: its specification, and the rows of each stage."""

    spec: TrainingSpec
    stages: tuple[TrainRows, ...]


@dataclass(frozen=True)
class TrainingPlan:
    """The trainings of a run, by method without transforms; empty when nothing is trained."""

    methods: Mapping[Method, MethodTraining] = field(default_factory=dict)
    dev: TrainRows | None = None
    leaks: LeakReport | None = None


def check_regime(method: Method, regime: str, backbone: Backbone) -> None:
    """Refuses trainings in which nothing could be learnt.

    Raises:
        InputError: frozen, with a guide, or without weights, or with a loss that lives on noise the backbone lacks.
    """
    if not method.trained or regime == "finetune":
        return
    if method.guides:
        raise InputError(
            f"{method.name}: {method.guides[0].name} acts on the attention of the backbone, which --regime frozen "
            "never changes; use --regime finetune."
        )
    if not any(True for _ in method.build_fusion(backbone.shape).parameters()):
        raise InputError(
            f"{method.name}: {method.fusion.name} has no weights, so a frozen backbone leaves nothing to train; use "
            "--regime finetune, or mlp in its place."
        )
    if any(objective.views > 1 for objective in method.build_objectives()):
        with backbone.noisy(0):  # refuses a backbone without dropout
            pass


def with_unguided(methods: Sequence[Method]) -> tuple[list[Method], list[str]]:
    """The methods, each guided one behind its twin without guides, and notes on twins that were added."""
    chosen: dict[Method, None] = {}
    notes = []
    for method in methods:
        if method.guides:
            twin = method.without_guides
            if twin not in methods and twin not in chosen:
                notes.append(f"{twin.name} is added: a guide is judged beside the same training without it")
            chosen[twin] = None
        chosen[method] = None
    return list(chosen), notes


def plan_training(
    options: Options, methods: Sequence[Method], tasks: Sequence[LoadedTask], by_name: Mapping[Method, bool]
) -> tuple[TrainingPlan, list[Method], list[str]]:
    """Chooses rows for every method that is trained, and looks for test data among them.

    Args:
        options: what the user asked for.
        methods: on this backbone.
        tasks: to be judged on.
        by_name: whether a method was asked for itself; one from the catalogue is left out when no set suits it.

    Returns:
        The plan, the methods that remain, and what the user should know.

    Raises:
        InputError: if rows are missing or are test data, or the budget makes no sense.
    """
    asked = options.training
    if not any(method.trained for method in methods):
        return TrainingPlan(), list(methods), []
    if asked.trials > 1 and asked.dev is None:
        raise InputError("--trials chooses the best learning rate on dev rows: name them with --dev, e.g. stsb-dev.")
    source = RowSource(asked.data, options.data_dir, asked.limit)
    dev = load_dev(asked.dev, options.data_dir) if asked.dev else None
    remaining: list[Method] = []
    stages: dict[Method, tuple[TrainRows, ...]] = {}
    notes: list[str] = []
    for method in methods:
        try:
            if method.trained:
                stages[method.stem] = tuple(
                    source.rows(objective.reads, reader=part.name)
                    for part, objective in zip(method.objectives, method.build_objectives(), strict=True)
                )
        except InputError as error:
            if by_name.get(method, True):
                raise
            notes.append(f"{method.name} is left out: {error}")
            continue
        remaining.append(method)
    trained = {id(rows): rows for rows in (rows for of_method in stages.values() for rows in of_method)}
    leaks = check_leaks(list(trained.values()), dev, tasks, drop=asked.drop_leaks)
    if dev is not None and leaks.dev is not None:
        dev = leaks.dev
        check_dev(dev)
    kept = dict(zip(trained, leaks.train, strict=True))
    plans = {
        method: MethodTraining(
            _training_spec(options, method, tuple(kept[id(rows)] for rows in of_method), dev),
            tuple(kept[id(rows)] for rows in of_method),
        )
        for method, of_method in stages.items()
    }
    return TrainingPlan(plans, dev, leaks), remaining, [*notes, *leaks.notes]


def _training_spec(
    options: Options, method: Method, stages: tuple[TrainRows, ...], dev: TrainRows | None
) -> TrainingSpec:
    asked, recipe = options.training, options.training.recipe
    return TrainingSpec(
        data=asked.data,
        limit=asked.limit,
        rows=tuple(rows.spec for rows in stages),
        epochs=None if recipe.steps is not None else recipe.epochs,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        learning_rate_new=recipe.learning_rate_new,
        weight_decay=recipe.weight_decay,
        warmup=recipe.warmup,
        max_grad_norm=recipe.max_grad_norm,
        accumulate=recipe.accumulate,
        chunk=recipe.chunk,
        precision=recipe.precision,
        dev=dev.spec if dev else None,
        dev_every=asked.dev_every if dev else None,
        trials=asked.trials,
        code=training_code_sha256(tuple(part.card.part.__module__ for part in method.stem.parts)),
    )


_TRIAL_FACTORS = (1.0, 10.0, 0.1, 3.0, 0.3, 30.0, 0.03)


def trial_recipes(recipe: Recipe, trials: int) -> list[Recipe]:
    """The recipe with each of the learning rates that are tried, the asked ones first.

    Raises:
        InputError: if more trials are asked for than there are factors.
    """
    if trials > len(_TRIAL_FACTORS):
        raise InputError(f"--trials {trials}: at most {len(_TRIAL_FACTORS)} learning rates are tried.")
    return [
        replace(
            recipe,
            learning_rate=recipe.learning_rate * factor,
            learning_rate_new=recipe.learning_rate_new * factor,
        )
        for factor in _TRIAL_FACTORS[:trials]
    ]
