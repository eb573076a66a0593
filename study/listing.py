"""`run_bench.py list`: methods, tasks, suites, backbones, protocols."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from fusebench.errors import InputError
from fusebench.study.screen import Screen


def show(flags: argparse.Namespace) -> int:
    """Prints the list that was asked for."""
    kinds = {
        "methods": _methods,
        "tasks": _tasks,
        "suites": _suites,
        "backbones": _backbones,
        "protocols": _protocols,
    }
    rows, columns = kinds[flags.what](flags)
    screen = Screen()
    if flags.names:
        for row in rows:
            print(row[0])
        return 0
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    screen.print(table)
    if flags.what == "methods":
        screen.print(
            "\nA method is a fusion and any transforms, e.g. first-last(first=0)+whiten(k=128). One that is trained"
        )
        screen.print("has objectives behind its fusion, a stage each, then any guides and a sampler:")
        screen.print("mean+batch-softmax+mse-cosine+mdg+example-shuffling.")
        screen.print("Parts and their parameters:\n")
        screen.print(_parts())
    return 0


Rows = tuple[Iterable[tuple[str, ...]], tuple[str, ...]]


def _methods(flags: argparse.Namespace) -> Rows:
    import fusebench.methods  # noqa: F401  registers the parts
    from fusebench.methods.registry import load_plugins
    from fusebench.study.catalogue import CATALOGUE

    load_plugins(flags.plugin)
    entries = [e for e in CATALOGUE if not flags.training_free or e.regime == "training-free"]
    return [(e.name, e.sentence, e.regime, e.about) for e in entries], ("name", "sentence", "regime", "what it is")


def _parts() -> Table:
    from fusebench.methods.grammar import write_value
    from fusebench.methods.registry import cards

    table = Table("part", "kind", "formula; parameters; source", box=None, pad_edge=False)
    for card in cards():
        parameters = ", ".join(f"{name}={write_value(value)}" for name, value in card.defaults.items())
        settings = "; ".join(filter(None, (parameters, card.paper)))
        table.add_row(card.name, card.kind, escape(f"{card.summary}\n{settings}"))
    return table


def _tasks(flags: argparse.Namespace) -> Rows:
    from fusebench.benchmarks.tasks import available_tasks

    if flags.data_dir is not None and not flags.data_dir.is_dir():
        raise InputError(
            f"--data-dir {flags.data_dir} is not a folder: give the folder that holds one folder per task."
        )
    if flags.plugin:  # which costs importing torch
        from fusebench.methods.registry import load_plugins

        load_plugins(flags.plugin)
    names = available_tasks()
    local = sorted(p.name for p in flags.data_dir.iterdir() if p.is_dir()) if flags.data_dir else []
    rows = [(name, "in the data folder" if name in local else "") for name in names]
    rows += [(name, "in the data folder, not in MTEB") for name in local if name not in names and name != "train"]
    return rows, ("task", "")


def _suites(flags: argparse.Namespace) -> Rows:
    from fusebench.benchmarks.suites import SUITES

    rows = [(s.name, str(len(s.tasks)), s.summary, ", ".join(s.tasks)) for s in SUITES.values()]
    return rows, ("suite", "tasks", "what it is", "")


def _backbones(flags: argparse.Namespace) -> Rows:
    from fusebench.methods.backbone_source import PACKAGED

    rows = [(name, packaged.summary) for name, packaged in PACKAGED.items()]
    rows += [
        ("PACKAGE", "an installed Python package that holds a folder with config.json and *.safetensors"),
        ("FOLDER", "a local folder with config.json, *.safetensors and a tokenizer"),
        ("ORG/NAME[@REVISION]", "a model of the hub"),
    ]
    return (rows[:1] if flags.names else rows), ("backbone", "what it is")


def _protocols(flags: argparse.Namespace) -> Rows:
    from fusebench.study.protocols import PROTOCOLS

    rows = [(p.name, f"{p.about}\n{', '.join(p.tasks)}\n{p.source}") for p in PROTOCOLS.values()]
    return rows, ("protocol", "what it is, its tasks, where it is from")
