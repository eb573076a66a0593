"""Which records a comparison is about: a method by its sentence, and of several settings the one asked for."""

from __future__ import annotations

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusebench.benchmarks.record import Record, Spec
from fusebench.errors import InputError
from fusebench.study.catalogue import recorded_name


@dataclass(frozen=True)
class Variant:
    """One method in one setting; `cells` has its records by task, of all seeds and data.

    Attributes:
        method: The canonical sentence.
        shared: What two methods must have in common to be compared, by name.
        own: What may differ between them: how the method was trained and fitted, by name.
    """

    method: str
    shared: tuple[tuple[str, str], ...]
    own: tuple[tuple[str, str], ...]
    cells: dict[str, list[Record]]

    @property
    def digest(self) -> str:
        """What `--setting` takes: a hash of the setting, without the method."""
        return hashlib.sha256(repr((self.shared, self.own)).encode()).hexdigest()[:8]


def variants(records: Iterable[Record]) -> list[Variant]:
    """Every method in every setting, by name."""
    found: dict[tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]], Variant] = {}
    for record in records:
        key = (record.spec.method.name, _shared(record.spec), _own(record.spec))
        cells = found.setdefault(key, Variant(*key, defaultdict(list))).cells
        cells[record.spec.task.name].append(record)
    return [found[key] for key in sorted(found)]


def _shared(spec: Spec) -> tuple[tuple[str, str], ...]:
    net = spec.backbone
    prompts = {role: text for role, text in spec.prompts.model_dump().items() if text}
    return (
        ("backbone", f"{net.name} {net.revision[:19]} {net.weights_sha256[:8]} {net.tokenizer_sha256[:8]}"),
        ("max length", str(spec.max_length)),
        ("dtype", spec.dtype),
        ("prompts", str(prompts or "none")),
        ("limit", str(spec.limit or "none")),
    )


def _own(spec: Spec) -> tuple[tuple[str, str], ...]:
    fit, train = spec.fit, spec.train
    # other code is not another setting: of two records of one cell the newest counts
    trained = train.model_dump(mode="json", exclude={"code"}) if train else {}
    return (
        ("regime", spec.regime),
        ("train", ", ".join(f"{name} {value}" for name, value in trained.items()) or "none"),
        ("saved weights", (spec.weights_sha256 or "none")[:12]),
        ("fit", f"{fit.name} {fit.sha256[:8]}" if fit else "none"),
    )


def narrowed(found: Sequence[Variant], settings: Sequence[str]) -> list[Variant]:
    """The variants left by `--setting`: of a method that has one of these settings, no other.

    Raises:
        InputError: Nothing has one of the settings.
    """
    for setting in settings:
        if not any(variant.digest.startswith(setting) for variant in found):
            known = ", ".join(sorted({variant.digest for variant in found}))
            raise InputError(f"--setting {setting}: no record has it; there are {known}.")
    named = {variant.method for variant in found if variant.digest.startswith(tuple(settings))} if settings else set()
    return [v for v in found if v.method not in named or v.digest.startswith(tuple(settings))]


def of_method(found: Sequence[Variant], method: str) -> list[Variant]:
    """The variants of a method, written as records have it or as `--methods` takes it.

    Raises:
        InputError: There is no record of it; the message suggests the nearest ones.
    """
    for sentence in (method, recorded_name(method)):
        if own := [variant for variant in found if variant.method == sentence]:
            return own
    names = sorted({variant.method for variant in found})
    near = difflib.get_close_matches(method, names, n=3)
    hint = (
        f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are {', '.join(names[:20]) or 'none'}."
    )
    raise InputError(f"no record of a method {method!r}. {hint}")


def one_pair(found: Sequence[Variant], first: str, second: str) -> tuple[Variant, Variant]:
    """The two variants to be compared, which share their setting but for training and fitting.

    Raises:
        InputError: A method is unknown, no two variants share a setting, or several do.
    """
    ones, others = of_method(found, first), of_method(found, second)
    pairs = [(one, other) for one in ones for other in others if one.shared == other.shared]
    if ones[0].method == others[0].method:
        pairs = [(one, other) for one, other in pairs if one.digest < other.digest]
        if not pairs:
            raise InputError(f"{first!r} has one setting only: name two methods.")
    if not pairs:
        raise InputError(
            f"{first!r} and {second!r} have no setting in common: {_described([*ones, *others])}; "
            "run both with the same backbone, length, dtype, prompts and limit."
        )
    if len(pairs) > 1:
        fitting = [v for v in (*ones, *others) if any(v in pair for pair in pairs)]
        raise InputError(f"several settings fit: {_described(fitting)}; choose with --setting.")
    return pairs[0]


def one_baseline(found: Sequence[Variant], method: str) -> Variant:
    """The variant that all others are compared with.

    Raises:
        InputError: The method is unknown or has several settings.
    """
    own = of_method(found, method)
    if len(own) > 1:
        raise InputError(f"{method!r} has several settings: {_described(own)}; choose one with --setting.")
    return own[0]


def labels(chosen: Sequence[Variant]) -> list[str]:
    """Names for a table: the method, and its setting where another variant has the same method."""
    names = [variant.method for variant in chosen]
    return [f"{v.method} [{v.digest}]" if names.count(v.method) > 1 else v.method for v in chosen]


def _described(found: Sequence[Variant]) -> str:
    """The variants, told apart by what they differ in."""
    rows = {(v.method, v.digest): dict((*v.shared, *v.own)) for v in found}
    names = [name for name in next(iter(rows.values())) if len({row[name] for row in rows.values()}) > 1]
    return "; ".join(
        f"{method} --setting {digest} ({', '.join(f'{name}: {row[name]}' for name in names) or 'the same'})"
        for (method, digest), row in rows.items()
    )
