"""`run_bench.py verify`: a record's score through stock mteb, and with stock sentence-transformers where it can."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from rich.text import Text

from fusebench.benchmarks.baseline import FLOOR
from fusebench.benchmarks.mteb_bridge import quiet
from fusebench.benchmarks.record import Prompts, Record
from fusebench.benchmarks.task_source import load_data, task_of
from fusebench.benchmarks.tasks import find_tasks
from fusebench.errors import InputError
from fusebench.methods.backbone import DTYPES, Backbone
from fusebench.methods.checkpoint import load_module
from fusebench.methods.encoder import Encoder, fit_transforms
from fusebench.methods.native_pooling import NativePooling
from fusebench.methods.parts import Fusion
from fusebench.methods.registry import load_plugins
from fusebench.methods.seeding import seeded
from fusebench.study.mteb_model import mteb_model
from fusebench.study.record_file import changes, read_record
from fusebench.study.replay import Again, look_up, places_of
from fusebench.study.screen import Screen
from fusebench.study.stock_modules import stock_form, stock_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Weights that were trained are taken from where the run left them, so these say nothing.
_OF_TRAINING = ("weights_sha256", "train.", "code")


def show(flags: argparse.Namespace) -> int:
    """Prints the score by each way and its difference from the record's; 1 if one is above 1e-4.

    Args:
        flags: `record` (a file), `data_dir`, `backbone`, `fit`, `train`, `dev`, `weights`, `plugin`.

    Raises:
        InputError: the record cannot be used, or something that it names is not there.
    """
    load_plugins(flags.plugin)
    record, screen = read_record(flags.record), Screen()
    again = look_up(record, flags.record, places_of(flags), saved=record.spec.train is not None)
    for where, then, now in changes(record.spec, again.cell.spec):
        if not where.startswith(_OF_TRAINING):
            screen.print(f"changed: {where}: {then} then, {now} now", highlight=False, markup=False, soft_wrap=True)
    fusion = _fusion(again)
    scores = {"our vectors through stock mteb": through_mteb(again, fusion)}
    reason = None
    try:
        model = stock(again, fusion)
    except InputError as error:
        reason = f"sentence-transformers cannot express it: {error}"
    else:
        scores["stock sentence-transformers and mteb"] = with_sentence_transformers(again, model)
    _print(record, scores, screen)
    if reason is not None:
        screen.print(reason, highlight=False, markup=False, soft_wrap=True)
    return 0 if all(abs(score - record.main_score) <= FLOOR for score in scores.values()) else 1


def through_mteb(again: Again, fusion: Fusion) -> float:
    """Main score of our encoder, handed to mteb as any other model: its loading, batches, similarity and metrics."""
    cell, options = again.cell, again.options
    encoder = Encoder(
        again.plan.backbone,
        cell.method,
        fusion=fusion,
        fit_texts=_fit_texts(again),
        batch_tokens=options.batch_tokens,
    )
    model = mteb_model(encoder.encode, name="fusebench/verified", revision="1", prompts=options.prompts)
    return _evaluate(model, again)


def with_sentence_transformers(again: Again, model: SentenceTransformer) -> float:
    """Main score of the method built of sentence-transformers' own modules, through mteb's own wrapper of it."""
    from mteb.models.model_meta import ModelMeta
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    prompts = again.options.prompts
    by_role = {"STS": prompts.text, "query": prompts.query, "document": prompts.document}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mteb asks sentence-transformers by an old name
        wrapped = SentenceTransformerEncoderWrapper(model, model_prompts=None if prompts == Prompts() else by_role)
    wrapped.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "stock/verified", "revision": "1"})
    return _evaluate(wrapped, again)


def stock(again: Again, fusion: Fusion) -> SentenceTransformer:
    """The cell's method as a `SentenceTransformer` of its own modules.

    Raises:
        InputError: if it has no modules for it.
    """
    method, backbone = again.cell.method, again.plan.backbone
    if isinstance(fusion, NativePooling) and not method.transforms:
        return _as_it_is(backbone)
    vectors = Encoder(backbone, method.stem, fusion=fusion).encode(_fit_texts(again)) if method.fitted else None
    form = stock_form(method, fusion, fit_transforms(method, vectors), backbone)
    return stock_model(form, backbone, tuned=again.cell.spec.regime == "finetune")


def _as_it_is(backbone: Backbone) -> SentenceTransformer:
    """The model that the backbone's folder is."""
    from sentence_transformers import SentenceTransformer

    folder, device = str(backbone.source.folder), str(backbone.device)
    model = SentenceTransformer(
        folder, device=device, local_files_only=True, model_kwargs={"dtype": DTYPES[backbone.dtype]}
    )
    model.max_seq_length = backbone.limit.tokens
    return model


def _fusion(again: Again) -> Fusion:
    """The cell's fusion with its weights in place; those of the backbone too if it was fine-tuned."""
    cell, backbone = again.cell, again.plan.backbone
    with seeded(cell.seed or 0, torch.device("cpu")):
        fusion = cell.method.build_fusion(backbone.shape)
    if cell.saved is not None:
        tensors = cell.saved.tensors()
        load_module(fusion, tensors, "fusion.")
        if cell.saved.regime == "finetune":
            load_module(backbone.model, tensors, "backbone.")
    return fusion


def _fit_texts(again: Again) -> list[str]:
    """Under the prompt that stands before every text."""
    return [again.options.prompts.text + text for text in again.plan.fit.texts] if again.plan.fit else []


def _evaluate(model: Any, again: Again) -> float:
    import mteb

    name, limit = again.cell.task.spec.name, again.options.limit
    (source,) = find_tasks([name], again.options.data_dir)
    # A limit is ours, so is the cutting; without one the data come as mteb loads them.
    task = again.cell.task.task if limit is not None else task_of(source)
    with quiet():
        if limit is None:
            load_data(task, source)
        results = mteb.evaluate(
            model,
            [task],
            cache=None,
            co2_tracker=False,
            encode_kwargs={"batch_size": 32, "show_progress_bar": False},
            show_progress_bar=False,
        )
    return float(results[0].get_score())


def _print(record: Record, scores: Mapping[str, float], screen: Screen) -> None:
    spec = record.spec
    table = Table("score of", spec.task.metric, "difference", "", box=None, pad_edge=False)
    table.add_row(Text(f"the record: {spec.method.name} on {spec.task.name}"), f"{record.main_score:.6f}", "", "")
    for way, score in scores.items():
        difference = score - record.main_score
        verdict = "agrees" if abs(difference) <= FLOOR else "DIFFERS"
        table.add_row(way, f"{score:.6f}", f"{difference:+.1e}", verdict)
    screen.print(table)
