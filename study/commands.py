"""What the sub-commands do once their flags are parsed."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from rich.table import Table

from fusebench.benchmarks.board_files import print_board, require_own_readme
from fusebench.benchmarks.leaderboard import Board, boards_showing, build_boards
from fusebench.benchmarks.record import Prompts
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.errors import InputError
from fusebench.methods import backbone_source
from fusebench.methods.backbone import Backbone
from fusebench.methods.backbone_source import find_backbone
from fusebench.methods.grammar import split
from fusebench.methods.recipe import Recipe
from fusebench.methods.registry import load_plugins
from fusebench.study import named_sets, text_sets
from fusebench.study.boards import rebuild
from fusebench.study.catalogue import recorded_name
from fusebench.study.display import LiveProgress, show_outcome, show_plan
from fusebench.study.doctor import check_layers
from fusebench.study.dry_run import DryRun
from fusebench.study.execute import Executor, execute
from fusebench.study.logs import logged_to_file, logged_to_stderr
from fusebench.study.options import Options, TrainingOptions
from fusebench.study.plan import Plan, choose_device, make_plan
from fusebench.study.protocol_scores import counted_tasks
from fusebench.study.protocol_table import show_protocol
from fusebench.study.run import Outcome
from fusebench.study.screen import Screen
from fusebench.study.significance import AT_ONCE, BASELINE, FEWEST_RESAMPLES, numbers_of, write_board_tests


def run_methods(flags: argparse.Namespace) -> int:
    """`run_bench.py --methods ...`: plans, runs, writes the boards, prints those that were asked for."""
    level = logging.ERROR if flags.quiet else max(logging.DEBUG, logging.WARNING - 10 * flags.verbose)
    with logged_to_stderr(level):
        return _run_methods(flags, level)


def _run_methods(flags: argparse.Namespace, level: int) -> int:
    started = time.monotonic()
    load_plugins(flags.plugin)
    screen, messages = Screen(), Screen(stderr=True, quiet=flags.quiet)
    options = options_of(flags)
    store = Store(options.out)
    require_own_readme(options.out)
    loading = time.monotonic()
    plan = make_plan(options)
    loading = time.monotonic() - loading
    counted = counted_tasks(flags.protocol.card, plan) if flags.protocol else None
    finished = {} if options.rerun else store.finished()
    show_plan(plan, sum(cell.spec.spec_id in finished for cell in plan.cells), messages)
    show_rejected(store, messages)
    if flags.dry_run:
        dry_run = DryRun(store, screen, messages)
        dry_run.add(plan, loading_seconds=loading)
        dry_run.show()
        return 0
    store.require_writable()
    with logged_to_file(options.out, level):
        outcome = compute(plan, store, executor_of(flags), messages)
        untested = _test_own_boards(plan, store, flags.test, messages)
        boards, files = rebuild(store)
        for board in _of_this_run(boards, plan):
            print_board(board, screen)
        if counted is not None:
            untested.append(show_protocol(flags.protocol, plan, store, counted, screen))
        show_outcome(outcome, time.monotonic() - started, messages)
        for line in [*untested, f"{len(files)} board files and scores.csv are in {options.out}"]:
            messages.print(line, highlight=False, markup=False, soft_wrap=True)
    if flags.quiet:  # then it has not been shown
        for failure in outcome.failures:
            Screen(stderr=True).print(f"FAILED {failure}", highlight=False, markup=False, soft_wrap=True)
    if not (options.suites or options.tasks):
        messages.print(
            "These two tasks are a first look. Real MTEB next: run_bench.py --methods --suite mteb-sts "
            "(downloads from the hub; with --data-dir DIR from a folder)",
            highlight=False,
            soft_wrap=True,
        )
    return 1 if outcome.failures else 0


def _test_own_boards(plan: Plan, store: Store, asked: bool | None, messages: Screen) -> list[str]:
    """Tests the boards of this run if that was asked for or takes seconds; what the user should know otherwise."""
    records = store.records()
    boards = _of_this_run(build_boards(records, store.suites()), plan)
    tasks = {task.spec.name: task for task in plan.tasks}
    by_id = {record.spec_id: record for record in records}
    if asked is None:
        small = [board for board in boards if numbers_of(board, by_id, tasks) <= AT_ONCE]
    else:
        small = boards if asked else []
    with LiveProgress(messages).running() as progress:
        lines = write_board_tests(small, records, tasks, store.out, progress=progress)
    if asked is None and len(small) < len(boards):
        lines.append("differences on large boards are tested on request: add --test, or run_bench.py report --test")
    return lines


def compute(plan: Plan, store: Store, executor: Executor, messages: Screen) -> Outcome:
    """Runs what is missing or damaged, where the executor says."""

    def say(line: str) -> None:
        messages.print(line, highlight=False, markup=False, soft_wrap=True)

    with LiveProgress(messages).running() as progress:
        return execute(plan, store, executor, progress, say)


def _of_this_run(boards: list[Board], plan: Plan) -> list[Board]:
    """The boards of the suites asked for, in the setting of this run; what else lies in the folder is not shown."""
    return boards_showing(boards, [cell.spec for cell in plan.cells], plan.views)


def report(flags: argparse.Namespace) -> int:
    """`run_bench.py report`: the boards again, from the records alone."""
    load_plugins(flags.plugin)
    screen, messages = Screen(), Screen(stderr=True)
    if not flags.out.is_dir():
        raise InputError(f"--out {flags.out}: there is no such results folder.")
    if not (flags.out / "runs").is_dir():
        raise InputError(f"--out {flags.out} holds no records (it has no folder runs); run --methods first.")
    require_own_readme(flags.out)
    _require_drawing(flags)
    store = Store(flags.out)
    problems = _tested_again(store, flags, messages) if flags.test else []
    boards, files = rebuild(store)
    show_rejected(store, messages)
    for board in boards:
        print_board(board, screen)
    messages.print(f"{len(files)} board files and scores.csv are in {flags.out}", highlight=False, soft_wrap=True)
    if flags.html is not None:
        from fusebench.study.html_report import write_report

        page = write_report(store, Path(flags.html) if flags.html else flags.out / "report.html")
        messages.print(f"{page} opens in any browser, without a network", highlight=False, soft_wrap=True)
    if flags.figures:
        from fusebench.study.figures import write_all_figures

        count = len(write_all_figures(store))
        messages.print(f"{count} figures are in {flags.out / 'figures'}", highlight=False, soft_wrap=True)
    if flags.mteb_results is not None:
        from fusebench.benchmarks.mteb_results import write_mteb_results

        written = write_mteb_results(store, flags.mteb_results)
        left_out = f"; left out: {written.smoke} of smoke runs, {written.absent} whose file in mteb/ is not whole"
        messages.print(
            f"{len(written.files)} results of mteb are in {flags.mteb_results / 'results'}"
            + left_out * bool(written.smoke or written.absent),
            highlight=False,
            soft_wrap=True,
        )
    for problem in problems:
        messages.print(problem, highlight=False, markup=False, soft_wrap=True)
    return 1 if problems else 0


def _require_drawing(flags: argparse.Namespace) -> None:
    """Says what is not installed before minutes of work, not after."""
    if flags.html is not None:
        from fusebench.benchmarks.report_figure import plotly_parts

        plotly_parts()
    if flags.figures:
        from fusebench.benchmarks.paper_figures import matplotlib_parts

        matplotlib_parts()


def _tested_again(store: Store, flags: argparse.Namespace, messages: Screen) -> list[str]:
    """Tests every board of the folder; a sentence for each that could not be."""
    if flags.resamples < FEWEST_RESAMPLES:
        raise InputError(
            f"--resamples {flags.resamples} are too few for an interval: give at least {FEWEST_RESAMPLES}."
        )
    records = store.records()
    boards = build_boards(records, store.suites())
    baseline = _row_named(flags.baseline, boards)
    limits = {record.spec_id: record.spec.limit for record in records}
    problems = []
    with LiveProgress(messages).running() as progress:
        for limit in sorted({limits[min(board.spec_ids)] for board in boards}, key=str):
            own = [board for board in boards if limits[min(board.spec_ids)] == limit]
            sources = find_tasks(list(dict.fromkeys(task for board in own for task in board.tasks)), flags.data_dir)
            tasks = {source.name: load_task(source, limit=limit, allow_empty=True) for source in sources}
            problems += write_board_tests(
                own,
                records,
                tasks,
                store.out,
                baseline=baseline,
                resamples=flags.resamples,
                seed=flags.seed,
                progress=progress,
            )
    return problems


def _row_named(baseline: str, boards: list[Board]) -> str:
    """What the boards call the row that is meant."""
    rows = {str(label) for board in boards for label in board.table["method"]}
    for name in (baseline, recorded_name(baseline)):
        if name in rows:
            return name
    if baseline != BASELINE:
        raise InputError(f"--baseline {baseline}: no board has such a row; there are {', '.join(sorted(rows))}.")
    return baseline


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


def sentences(groups: list[list[str]]) -> tuple[str, ...]:
    """The methods behind `--methods`, by commas or repeated; a flag without a value means all."""
    texts = [text for group in groups for text in (group or ["all"])]
    return tuple(piece for text in texts for piece in (split(text, ",") if text.strip() else [text]))


def prompts(flags: argparse.Namespace) -> Prompts:
    """What is put before texts, queries and documents."""
    prompt = flags.prompt or ""
    return Prompts(
        text=prompt,
        query=prompt if flags.query_prompt is None else flags.query_prompt,
        document=prompt if flags.document_prompt is None else flags.document_prompt,
    )


def options_of(flags: argparse.Namespace) -> Options:
    """What the flags of a run ask for."""
    return Options(
        methods=sentences(flags.methods),
        backbone=backbone_source.DEFAULT if flags.backbone is None else flags.backbone,
        suites=tuple(name for names in flags.suite or [] for name in names),
        tasks=tuple(name for names in flags.tasks or [] for name in names),
        data_dir=flags.data_dir,
        available_only=flags.available_only,
        out=flags.out,
        seeds=flags.seeds,
        fit=text_sets.DEFAULT if flags.fit is None else flags.fit,
        training=_training(flags),
        prompts=prompts(flags),
        device=flags.device,
        dtype=flags.dtype,
        max_length=flags.max_length,
        batch_tokens=flags.batch_tokens,
        limit=flags.limit,
        allow_empty=flags.allow_empty_texts,
        remote_code=flags.trust_remote_code,
        rerun=flags.rerun,
        plugins=tuple(flags.plugin),
    )


def executor_of(flags: argparse.Namespace) -> Executor:
    """Where the flags of a run have its cells computed."""
    return Executor(flags.executor, flags.cpus, flags.gpus, tuple(flags.plugin))


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
        processes=flags.processes,
    )


def show_rejected(store: Store, messages: Screen) -> None:
    """One line a reason, with the first file that it holds for."""
    by_reason: dict[str, list[Path]] = {}
    for path, reason in store.rejected:
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        first = paths[0].relative_to(store.out) if paths[0].is_relative_to(store.out) else Path(paths[0].name)
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        messages.print(f"not used: {first}{others}: {reason}", highlight=False, markup=False, soft_wrap=True)
