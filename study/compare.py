"""`run_bench.py compare`: two methods, or every method against a baseline, on the same items."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from rich.table import Table

from fusebench.benchmarks.bootstrap import Floats
from fusebench.benchmarks.comparison import Difference, Estimate, Resampled, averages
from fusebench.benchmarks.statistics import letters, p_text, share_text
from fusebench.benchmarks.store import Store
from fusebench.benchmarks.suites import suite
from fusebench.benchmarks.tasks import LoadedTask, find_tasks, load_task
from fusebench.errors import InputError
from fusebench.methods.registry import load_plugins
from fusebench.study.compare_choice import Variant, narrowed, one_baseline, one_pair, variants
from fusebench.study.evidence import Evidence, gather
from fusebench.study.resampled_tasks import BothSchemes, drawn_sentences, resample_both, single_tasks
from fusebench.study.screen import Screen
from fusebench.study.significance import FEWEST_RESAMPLES


def show(flags: argparse.Namespace) -> int:
    """Prints the comparison that was asked for.

    Args:
        flags: `methods` (two sentences, or none with `baseline`), `baseline`, `suite`, `tasks`, `out`, `data_dir`,
            `setting`, `every_pair`, `resamples`, `seed`, `plugin`.

    Raises:
        InputError: What was asked for cannot be compared.
    """
    load_plugins(flags.plugin)
    if not (flags.out / "runs").is_dir():
        raise InputError(f"--out {flags.out} holds no records (it has no folder runs); run --methods first.")
    if (flags.baseline is None) == (not flags.methods) or (flags.methods and len(flags.methods) != 2):
        raise InputError("compare takes two methods, A B, or --baseline METHOD for every method against that one.")
    if flags.resamples < FEWEST_RESAMPLES:
        raise InputError(
            f"--resamples {flags.resamples} are too few for an interval: give at least {FEWEST_RESAMPLES}."
        )
    found = narrowed(variants(Store(flags.out).records()), flags.setting)
    screen = Screen()
    if flags.baseline is None:
        _show_pair(one_pair(found, *flags.methods), flags, screen)
    else:
        _show_family(one_baseline(found, flags.baseline), found, flags, screen)
    return 0


def _show_pair(pair: tuple[Variant, Variant], flags: argparse.Namespace, screen: Screen) -> None:
    common = [name for name in pair[0].cells if name in pair[1].cells]
    names, missing = _tasks(common, flags, "both methods")
    evidence, both, weights = _resampled(pair, names, flags)
    table = Table("task", "A", "B", "A - B", "95 %", "p", "d", "detectable")
    if both.clusters:
        for header in ("95 % clusters", "p clusters", "detectable clusters"):
            table.add_column(header)
    for name, on in weights.items():
        (found,), *clustered = (scheme.differences([(0, 1)], on) for scheme in both.schemes)
        row = [name, *(f"{100 * score:.2f}" for score in found.scores), f"{100 * found.estimate.value:+.2f}"]
        row += [_range(found.estimate), p_text(found.p, flags.resamples), f"{found.effect:+.3f}", _size(found)]
        for (wide,) in clustered:
            row += [_range(wide.estimate), p_text(wide.p, flags.resamples), _size(wide)]
        table.add_row(*row)
    _say(screen, f"A: {evidence.contenders[0].label}", f"B: {evidence.contenders[1].label}")
    screen.print(table)
    _say(screen, *_notes(evidence, missing, flags))


def _show_family(baseline: Variant, found: Sequence[Variant], flags: argparse.Namespace, screen: Screen) -> None:
    names, missing = _tasks(list(baseline.cells), flags, repr(baseline.method))
    rivals = [v for v in found if v.shared == baseline.shared and v is not baseline]
    complete = [v for v in rivals if set(names) <= v.cells.keys()]
    chosen = [baseline, *complete]
    twins = [v for v in complete if _equal_to(v, names[0]) in {c.method for c in chosen}]
    chosen = [v for v in chosen if v not in twins]
    if len(chosen) < 2:
        raise InputError(
            f"no other method has records of {', '.join(names)} in the setting of {baseline.method!r}: run some, or "
            "name fewer --tasks."
        )
    evidence, both, weights = _resampled(chosen, names, flags)
    name, on = list(weights.items())[-1]
    table = Table("method", name, "95 %", "- baseline", "95 %", "p", "p max-T", "d", "detectable")
    if both.clusters:
        for header in ("95 % clusters", "p max-T clusters"):
            table.add_column(header)
    table.add_column("group")
    families = [scheme.against(0, on) for scheme in both.schemes]
    marks = letters((groups := both.careful.groups(on)), len(chosen))
    by_score = sorted(range(len(chosen)), key=lambda k: -both.items.estimate(k, on).value)
    for k in by_score:
        own = both.items.estimate(k, on)
        row = [evidence.contenders[k].label, f"{100 * own.value:.2f}", _range(own)]
        if k == 0:
            row += ["baseline", *[""] * (5 + 2 * (len(families) - 1))]
        else:
            (of_items, *of_clusters) = (family[k - 1] for family in families)
            row += [f"{100 * of_items.estimate.value:+.2f}", _range(of_items.estimate)]
            row += [p_text(of_items.p, flags.resamples), p_text(of_items.adjusted, flags.resamples)]
            row += [f"{of_items.effect:+.3f}", _size(of_items)]
            for wide in of_clusters:
                row += [_range(wide.estimate), p_text(wide.adjusted, flags.resamples)]
        table.add_row(*row, marks[k])
    screen.print(table)
    drawn = "clusters" if both.clusters else "items"
    _say(
        screen,
        f"p max-T: adjusted for all {len(chosen) - 1} comparisons with the baseline, from the same resamples",
        f"group: methods that share a letter are not told apart (max-T over all pairs, over {drawn}, 5 %); "
        f"{len(groups)} maximal groups",
        *_left_out(rivals, complete, twins),
        *_notes(evidence, missing, flags),
    )
    if flags.every_pair:
        _show_every_pair(both.careful, on, name, flags, screen)


def _show_every_pair(scheme: Resampled, on: Floats, name: str, flags: argparse.Namespace, screen: Screen) -> None:
    table = Table("A", "B", f"A - B on {name}", "95 %", "p", "p Benjamini-Hochberg")
    for found in sorted(scheme.every_pair(on), key=lambda difference: difference.p):
        names = [scheme.contenders[k].label for k in (found.one, found.other)]
        ps = [p_text(found.p, flags.resamples), share_text(found.adjusted, found.p, flags.resamples)]
        table.add_row(*names, f"{100 * found.estimate.value:+.2f}", _range(found.estimate), *ps)
    _say(
        screen, f"EXPLORATORY: every pair, over {scheme.scheme}; a small p here is a hint for a next test, no finding"
    )
    screen.print(table)


def _tasks(present: Sequence[str], flags: argparse.Namespace, whose: str) -> tuple[list[str], list[str]]:
    """Tasks to compare on, and those of the suite that have no records."""
    asked = [name for names in flags.tasks or [] for name in names]
    if flags.suite is not None:
        if asked:
            raise InputError("--suite and --tasks both say what to compare on: give one of them.")
        asked = list(suite(flags.suite).tasks)
    missing = [name for name in dict.fromkeys(asked) if name not in present]
    names = [name for name in dict.fromkeys(asked) if name in present] if asked else sorted(present)
    if missing and flags.suite is None:
        raise InputError(f"{whose} have no records of {', '.join(missing)}: run them first, or name other --tasks.")
    if not names:
        raise InputError(f"{whose} have no task in common that was asked for: run them on the same tasks first.")
    return names, missing


def _resampled(
    chosen: Sequence[Variant], names: Sequence[str], flags: argparse.Namespace
) -> tuple[Evidence, BothSchemes, dict[str, Floats]]:
    """The evidence, its resamples, and the weights of the tasks by task and average."""
    limit = next(record.spec.limit for record in chosen[0].cells[names[0]])
    tasks = [_loaded(name, limit, flags) for name in names]
    evidence = gather(chosen, tasks, flags.out, match_seeds=flags.baseline is None)
    both = resample_both(evidence, seed=flags.seed, resamples=flags.resamples)
    means = averages({task.name: task.type for task in evidence.tasks})
    return evidence, both, single_tasks(evidence) | means


def _loaded(name: str, limit: int | None, flags: argparse.Namespace) -> LoadedTask:
    (source,) = find_tasks([name], flags.data_dir)
    return load_task(source, limit=limit, allow_empty=True)


def _equal_to(variant: Variant, task: str) -> str | None:
    return variant.cells[task][-1].equal_to


def _range(estimate: Estimate) -> str:
    return f"{100 * estimate.low:.2f} to {100 * estimate.high:.2f}"


def _size(difference: Difference) -> str:
    return f"{100 * difference.detectable:.2f}"


def _left_out(rivals: Sequence[Variant], complete: Sequence[Variant], twins: Sequence[Variant]) -> Iterator[str]:
    lacking = sorted(v.method for v in rivals if v not in complete)
    if lacking:
        yield f"left out, without records of every task: {', '.join(lacking)}"
    if twins:
        yield f"left out, equal to another by construction: {', '.join(sorted(v.method for v in twins))}"


def _notes(evidence: Evidence, missing: Sequence[str], flags: argparse.Namespace) -> Iterator[str]:
    yield (
        f"Scores x100. {flags.resamples} resamples, seed {flags.seed}; 95 %: expanded percentile intervals; "
        "p: two-sided, of that row alone; d: difference in standard deviations of an item's part in it, of an "
        "average the mean of its tasks'; "
        "detectable: the true difference found with probability 0.8 at p < 0.05"
    )
    yield from drawn_sentences(evidence.tasks)
    seeds = {contender.seeds for contender in evidence.contenders if contender.seeds != (None,)}
    for own in sorted(seeds, key=str):
        shown = ", ".join(map(str, own))
        yield (
            f"seeds {shown}, matched and resampled with the items"
            if len(own) > 1
            else f"seed {shown} only: noise between seeds is in no interval and no p"
        )
    if len(seeds) > 1:
        yield "methods with different seeds: their seeds are resampled apart"
    if missing:
        yield f"no records of {', '.join(missing)}: the averages are of the other tasks"


def _say(screen: Screen, *lines: str) -> None:
    for line in lines:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)
