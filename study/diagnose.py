"""`run_bench.py diagnose`: the geometry of methods' vectors, layer by layer, kept for the report and printed."""

from __future__ import annotations

import argparse
import logging

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fusebench.benchmarks.diagnosis import Diagnosis, TrainedWeights
from fusebench.benchmarks.diagnosis_files import write_diagnosis
from fusebench.benchmarks.embedding_space import QUANTITIES
from fusebench.benchmarks.mirror import mirror_of
from fusebench.benchmarks.tasks import find_tasks, load_task
from fusebench.methods import backbone_source
from fusebench.methods.backbone import Backbone
from fusebench.methods.registry import load_plugins
from fusebench.study import text_sets
from fusebench.study.commands import prompts, sentences
from fusebench.study.diagnosis import diagnose
from fusebench.study.diagnosis_pass import Settings
from fusebench.study.diagnosis_subjects import choose_subjects
from fusebench.study.diagnosis_texts import draw
from fusebench.study.display import LiveProgress
from fusebench.study.plan import choose_device
from fusebench.study.screen import Screen

METHODS = ("mean@each", "cls@each")


def show(flags: argparse.Namespace) -> int:
    """Measures, writes a file a task and prints it; 1 if a method has no numbers.

    Args:
        flags: `methods`, `trained`, `backbone`, `device`, `dtype`, `max_length`, `trust_remote_code`, `prompt`,
            `query_prompt`, `document_prompt`, `fit`, `tasks`, `data_dir`, `attention`, `limit`, `seed`,
            `batch_tokens`, `out`, `plugin`.

    Raises:
        InputError: a method, task or backbone cannot be used.
    """
    logging.basicConfig(level=logging.WARNING)
    load_plugins(flags.plugin)
    screen, messages = Screen(), Screen(stderr=True)
    name = backbone_source.DEFAULT if flags.backbone is None else flags.backbone
    backbone = Backbone(
        backbone_source.find_backbone(name, remote_code=flags.trust_remote_code),
        device=choose_device(flags.device),
        dtype=flags.dtype,
        max_length=flags.max_length,
        remote_code=flags.trust_remote_code,
    )
    fit = text_sets.load_texts(text_sets.DEFAULT if flags.fit is None else flags.fit, flags.data_dir)
    asked = sentences(flags.methods) if flags.methods else () if flags.trained else METHODS
    subjects, notes = choose_subjects(asked, flags.out, backbone, fit.spec.count, every_training=flags.trained)
    if (mirror := mirror_of(flags.out)) is not None:
        mirror.fetch_weights([one.saved.folder for subject in subjects for one in subject.methods if one.saved])
    settings = Settings(flags.attention, flags.limit, flags.seed, prompts(flags), flags.batch_tokens)
    sources = find_tasks(_tasks(flags), flags.data_dir)
    samples = [
        draw(load_task(source, limit=None, allow_empty=False), settings.prompts, limit=flags.limit, seed=flags.seed)
        for source in sources
    ]
    for note in notes:
        _say(messages, f"note: {note}")
    with LiveProgress(messages).running() as progress:
        made, failures = diagnose(backbone, subjects, samples, fit, settings, progress)
    for one in made:
        path = write_diagnosis(flags.out, one)
        _print(one, screen)
        _say(messages, f"{path} is shown by run_bench.py report --html")
    for failure in failures:
        _say(messages, f"FAILED {failure}")
    return 1 if failures else 0


def _tasks(flags: argparse.Namespace) -> list[str]:
    if flags.tasks:
        return [name for names in flags.tasks for name in names]
    there = flags.data_dir is not None and (flags.data_dir / "STSBenchmark").is_dir()
    return ["STSBenchmark" if there else "LeeSTS"]


def _print(one: Diagnosis, screen: Screen) -> None:
    spec, sizes = one.spec, one.sizes
    drawn = f", drawn with seed {spec.seed}" if sizes.texts_of_task > spec.limit else ""
    _say(screen, f"{spec.task.name}, {spec.backbone.name}: {sizes.texts} texts of {sizes.texts_of_task}{drawn}")
    _say(screen, f"alignment over {sizes.pairs} pairs of {sizes.pairs_of_task} ({spec.pair_rule})")
    _say(screen, spec.conventions)
    tuned = any(method.backbone for method in spec.methods)
    table = Table("method", *(["backbone"] if tuned else []), "dims", *(q.name for q in QUANTITIES))
    for method, space in zip(spec.methods, one.spaces, strict=True):
        label = method.method.name + (f", seed {method.trained.seed}" if method.trained else "")
        numbers = [quantity.text(getattr(space, quantity.field)) for quantity in QUANTITIES]
        table.add_row(Text(label), *([_label(method.backbone)] if tuned else []), str(space.dim), *numbers)
    screen.print(table)
    for similarity in one.similarities:
        _say(screen, f"linear CKA between the layers of {similarity.sweep}, backbone {_label(similarity.backbone)}")
        table = Table("layer", *map(str, similarity.layers))
        for layer, row in zip(similarity.layers, similarity.cka, strict=True):
            table.add_row(str(layer), *(f"{value:.3f}" for value in row))
        screen.print(table)
    for attention in one.attention:
        even = f"spread evenly, a token gets {attention.even_share:.3f}"
        _say(screen, f"attention of the backbone {_label(attention.backbone)}; {even}")
        ends = attention.first_token or "first token", attention.last_token or "last token"
        table = Table("block", "entropy / ln T", *map(escape, ends), "cosine of heads")
        for block in attention.blocks:
            cosine = "" if block.head_cosine is None else f"{block.head_cosine:.3f}"
            shares = [f"{share:.3f}" for share in (block.entropy, block.first_token, block.last_token)]
            table.add_row(str(block.block), *shares, cosine)
        screen.print(table)


def _label(trained: TrainedWeights | None) -> str:
    return "frozen" if trained is None else f"{trained.method}, seed {trained.seed}"


def _say(screen: Screen, line: str) -> None:
    screen.print(line, highlight=False, markup=False, soft_wrap=True)
