"""What the sub-commands do once their flags are parsed."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from rich.table import Table

from fusebench.benchmarks.board_files import print_board, require_own_readme
from fusebench.benchmarks.leaderboard import Board, boards_showing
from fusebench.benchmarks.record import Prompts
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError
from fusebench.methods import backbone_source
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import find_backbone
from fusebench.methods.grammar import split
from fusebench.methods.recipe import Recipe
from fusebench.methods.registry import load_plugins
from fusebench.study import named_sets, text_sets
from fusebench.study.boards import rebuild
from fusebench.study.damage import forget_finished_checkpoints, quarantine_cells, quarantine_trainings
from fusebench.study.display import LiveProgress, show_outcome, show_plan
from fusebench.study.doctor import check_layers
from fusebench.study.options import Options, TrainingOptions
from fusebench.study.plan import Plan, choose_device, make_plan
from fusebench.study.run import Outcome, run
from fusebench.study.screen import Screen, log_to_stderr
from fusebench.study.training_locks import trainings_locked


def run_methods(flags: argparse.Namespace) -> int:
    """`run_bench.py --methods ...`: plans, runs, writes the boards, prints those that were asked for."""
    started = time.monotonic()
    log_to_stderr(max(logging.DEBUG, logging.WARNING - 10 * flags.verbose))
    load_plugins(flags.plugin)
    screen, messages = Screen(), Screen(stderr=True)
    options = _options(flags)
    store = Store(options.out)
    require_own_readme(options.out)
    plan = make_plan(options)
    finished = {} if options.rerun else store.finished()
    show_plan(plan, sum(cell.spec.spec_id in finished for cell in plan.cells), messages)
    _show_rejected(store, messages)
    if flags.dry_run:
        for cell in plan.cells:
            screen.print(f"{cell.spec.spec_id}  {cell.task.spec.name}  {cell.method.name}", soft_wrap=True)
        return 0
    outcome = _compute(plan, store, messages)
    boards, files = rebuild(store)
    for board in _of_this_run(boards, plan):
        print_board(board, screen)
    show_outcome(outcome, time.monotonic() - started, messages)
    messages.print(f"{len(files)} board files and scores.csv are in {options.out}", highlight=False, soft_wrap=True)
    if not (options.suites or options.tasks):
        messages.print(
            "These two tasks are a first look. Real MTEB next: run_bench.py --methods --suite mteb-sts "
            "(downloads from the hub; with --data-dir DIR from a folder)",
            highlight=False,
            soft_wrap=True,
        )
    return 1 if outcome.failures else 0


def _compute(plan: Plan, store: Store, messages: Screen) -> Outcome:
    """Runs what is missing or damaged, while no other run trains the same in this folder."""

    def waiting(method: str) -> None:
        messages.print(f"another run is training {method} in {store.out}: waiting for it", soft_wrap=True)

    lines = quarantine_cells(plan, store)
    finished = {} if plan.options.rerun else store.finished()
    with trainings_locked(plan, finished, waiting) as to_train:
        for line in [*lines, *quarantine_trainings(to_train, store)]:
            messages.print(f"to quarantine: {line}", highlight=False, markup=False, soft_wrap=True)
        with LiveProgress(messages).running() as progress:
            outcome = run(plan, store, progress)
        forget_finished_checkpoints(store.out)
        return outcome


def _of_this_run(boards: list[Board], plan: Plan) -> list[Board]:
    """The boards of the suites asked for, in the setting of this run; what else lies in the folder is not shown."""
    return boards_showing(boards, [cell.spec for cell in plan.cells], plan.views)


def report(flags: argparse.Namespace) -> int:
    """`run_bench.py report`: the boards again, from the records alone."""
    screen, messages = Screen(), Screen(stderr=True)
    if not flags.out.is_dir():
        raise InputError(f"--out {flags.out}: there is no such results folder.")
    if not (flags.out / "runs").is_dir():
        raise InputError(f"--out {flags.out} holds no records (it has no folder runs); run --methods first.")
    require_own_readme(flags.out)
    store = Store(flags.out)
    boards, files = rebuild(store)
    _show_rejected(store, messages)
    for board in boards:
        print_board(board, screen)
    messages.print(f"{len(files)} board files and scores.csv are in {flags.out}", highlight=False, soft_wrap=True)
    if flags.html is not None:
        from fusebench.study.html_report import write_report

        page = write_report(store, Path(flags.html) if flags.html else flags.out / "report.html")
        messages.print(f"{page} opens in any browser, without a network", highlight=False, soft_wrap=True)
    return 0


def doctor(flags: argparse.Namespace) -> int:
    """`run_bench.py doctor`: what a record would say of this backbone, and its layers by both protocols."""
    screen = Screen()
    name = backbone_source.DEFAULT if flags.backbone is None else flags.backbone
    source = find_backbone(name, remote_code=flags.trust_remote_code)
    backbone = Backbone(
        source,
        device=choose_device(flags.device),
        dtype=flags.dtype,
        max_length=flags.max_length,
        remote_code=flags.trust_remote_code,
    )
    facts = {
        "backbone": source.name,
        "revision": source.revision,
        "weights sha256": source.weights_sha256,
        "architecture": f"{backbone.architecture}, {backbone.shape.blocks} blocks, {backbone.shape.dim} wide",
        "max length": f"{backbone.limit.tokens} tokens ({backbone.limit.source})",
        "padding": backbone.padding_side,
        "mask token": backbone.tokenizer.mask_token or "none: prompt-mask is not available",
        "final norm": {
            "none": "none; every state is a block's output",
            "last-state-only": f"on state {backbone.shape.blocks} alone; states below it are not normed",
        }[backbone.final_norm],
    }
    for name, value in facts.items():
        screen.print(f"{name + ':':16}{value}", highlight=False, markup=False, soft_wrap=True)
    table = Table("k", "mean token norm", "max |difference|", "min cosine of means", "verdict")
    checks = check_layers(backbone)
    for check in checks:
        same = check.difference <= 1e-4 * max(1.0, check.norm)
        verdict = "same" if same else "DIFFERS"
        row = (f"{check.norm:.2f}", f"{check.difference:.2e}", f"{check.cosine:.4f}", verdict)
        table.add_row(str(check.layer), *row)
    screen.print("\nhidden_states[k] of the full model (used here) against the model cut to k blocks:", markup=False)
    screen.print(table)
    return 0


def _options(flags: argparse.Namespace) -> Options:
    texts = [text for group in flags.methods for text in (group or ["all"])]
    prompt = flags.prompt or ""
    return Options(
        methods=tuple(piece for text in texts for piece in (split(text, ",") if text.strip() else [text])),
        backbone=backbone_source.DEFAULT if flags.backbone is None else flags.backbone,
        suites=tuple(name for names in flags.suite or [] for name in names),
        tasks=tuple(name for names in flags.tasks or [] for name in names),
        data_dir=flags.data_dir,
        available_only=flags.available_only,
        out=flags.out,
        seeds=flags.seeds,
        fit=text_sets.DEFAULT if flags.fit is None else flags.fit,
        training=_training(flags),
        prompts=Prompts(
            text=prompt,
            query=prompt if flags.query_prompt is None else flags.query_prompt,
            document=prompt if flags.document_prompt is None else flags.document_prompt,
        ),
        device=flags.device,
        dtype=flags.dtype,
        max_length=flags.max_length,
        batch_tokens=flags.batch_tokens,
        limit=flags.limit,
        allow_empty=flags.allow_empty_texts,
        remote_code=flags.trust_remote_code,
        rerun=flags.rerun,
    )


def _training(flags: argparse.Namespace) -> TrainingOptions:
    rates = {"frozen": 1e-3, "finetune": 1e-4}
    return TrainingOptions(
        regime=flags.regime,
        data=tuple(name for names in flags.train or [[named_sets.DEFAULT]] for name in names),
        limit=flags.limit_train,
        recipe=Recipe(
            epochs=None if flags.steps else flags.epochs or 3,
            steps=flags.steps,
            batch_size=flags.batch_size,
            learning_rate=flags.lr,
            learning_rate_new=flags.lr_new or rates[flags.regime],
            accumulate=flags.accumulate,
            chunk=flags.chunk,
            precision=flags.precision,
        ),
        dev=flags.dev,
        dev_every=flags.dev_every,
        trials=flags.trials,
        drop_leaks=flags.drop_leaks,
        state_cache_gb=flags.state_cache_gb,
        track=tuple(dict.fromkeys(flags.track)),
    )


def _show_rejected(store: Store, messages: Screen) -> None:
    """One line a reason, with the first file that it holds for."""
    by_reason: dict[str, list[Path]] = {}
    for path, reason in store.rejected:
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        first = paths[0].relative_to(store.out) if paths[0].is_relative_to(store.out) else Path(paths[0].name)
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        messages.print(f"not used: {first}{others}: {reason}", highlight=False, markup=False, soft_wrap=True)
