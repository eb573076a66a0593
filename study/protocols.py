"""The evaluation protocols of other studies that `--protocol` takes, each a card."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from fusebench.errors import InputError
from fusebench.study.protocol_card import Protocol, Published

_SEVEN = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
_MTEB_NINE = ("BIOSSES", "SICK-R", "STS12", "STS13", "STS14", "STS15", "STS16", "STS17", "STSBenchmark")
_MTEB_EIGHT = ("STSBenchmark", "STS12", "STS13", "STS14", "STS15", "STS16", "BIOSSES", "SICK-R")

_SENTEVAL_TEXT = (
    "STS12 to STS16 lower-cased and tokenised, as SentEval and mteb have them; STS-B and SICK as released"
)
_MTEB_TEXT = "as mteb's data sets have them: STS12 to STS16 lower-cased and tokenised"


def _row(
    weights: str, method: str, source: str, scores: str, columns: tuple[str, ...] = (*_SEVEN, "average")
) -> Published:
    values = map(float, scores.split())
    return Published(weights, method, MappingProxyType(dict(zip(columns, values, strict=True))), source)


_SIMCSE = "princeton-nlp/SimCSE, evaluation.py and SentEval/senteval/sts.py; arXiv:2104.08821, Appendix B"

_WHITENING_README = "README of autoliuweijie/BERT-whitening-pytorch"
_WHITENING_COLUMNS = ("STS12", "STS13", "STS14", "STS15", "STS16", "SICK-R", "STSBenchmark")

_SIMCSE_2021 = Protocol(
    name="simcse-2021",
    about="SimCSE as in the paper: all pairs together; first-last average of states 0 and L",
    source=f"{_SIMCSE}; evaluation code before 2022-01-14 (issue 133)",
    tasks=_SEVEN,
    aggregation="all",
    sick="SemEval test",
    methods=("cls", "mean", "last-k-mean(k=2)", "first-last(first=0)"),
    layers="L; L-1 and L (avg_top2); 0 and L (avg_first_last)",
    pooling="first token, or mean over unmasked tokens, special tokens included",
    text=_SENTEVAL_TEXT,
    length="none beyond the model's own limit",
    average="Avg.",
    departures=(
        "the pooler `cls` (first token, then the checkpoint's linear layer and tanh), which supervised SimCSE is "
        "scored with, is not offered here: the method `cls` is its `cls_before_pooler`",
    ),
    published=(
        _row(
            "bert-base-uncased",
            "first-last(first=0)",
            "SimCSE, Table 5, as quoted in princeton-nlp/SimCSE issue 285",
            "39.70 59.38 49.67 66.03 66.19 53.87 62.06 56.70",
        ),
    ),
)

_ALL = (
    _SIMCSE_2021,
    replace(
        _SIMCSE_2021,
        name="simcse-2022",
        about="SimCSE's code since 2022-01-14: all pairs together; first-last average of states 1 and L",
        source=f"{_SIMCSE}; evaluation.py at 206d7ae",
        methods=("cls", "mean", "last-k-mean(k=2)", "first-last"),
        layers="L; L-1 and L (avg_top2); 1 and L (avg_first_last)",
        published=(
            _row(
                "bert-base-uncased",
                "first-last",
                "a user's run of the code, princeton-nlp/SimCSE issue 285",
                "45.09 64.30 54.56 70.52 67.87 59.05 63.75 60.73",
            ),
        ),
    ),
    Protocol(
        name="bert-whitening",
        about="BERT-whitening: sub-corpora weighted by their size; first-last average of states 1 and L, whitened",
        source="autoliuweijie/BERT-whitening-pytorch, all_utils.py and eval_with_whitening(nli).py at 0946cd5; "
        "bojone/BERT-whitening, eng/eval.py at f0d484f; arXiv:2103.15316",
        tasks=_WHITENING_COLUMNS,
        aggregation="wmean",
        sick="SemEval test",
        methods=("cls", "first-last", "first-last+whiten", "first-last+whiten(k=256)"),
        layers="L (cls); 1 and L (first_last_avg)",
        pooling="first token, or mean over all tokens of a text that is encoded alone, special tokens included",
        text=f"{_SENTEVAL_TEXT} (PyTorch version)",
        length="64 tokens",
        average=None,
        fit="sentences of SNLI and MNLI",
        settings=MappingProxyType({"max_length": 64}),
        departures=(
            "whitening fitted on the target's own texts is not offered: transforms are never fitted on the tasks",
            "the texts that whitening is fitted on are those of --fit, not all of SNLI and MNLI unless you give them",
        ),
        unconfirmed=("in which form bojone's version reads STS12 to STS16", "the sha256 of their NLI sentences"),
        published=(
            _row(
                "bert-base-uncased",
                "cls",
                _WHITENING_README,
                "30.62 26.38 27.65 36.05 51.80 42.42 20.29",
                _WHITENING_COLUMNS,
            ),
            _row(
                "bert-base-uncased",
                "first-last",
                _WHITENING_README,
                "57.85 61.96 62.50 70.96 69.79 63.75 59.04",
                _WHITENING_COLUMNS,
            ),
            _row(
                "bert-base-uncased",
                "first-last+whiten",
                _WHITENING_README,
                "61.69 65.71 66.05 75.16 73.20 68.29 63.65",
                _WHITENING_COLUMNS,
            ),
            _row(
                "bert-base-uncased",
                "first-last+whiten(k=256)",
                _WHITENING_README,
                "61.48 66.72 66.22 74.83 72.22 67.57 64.96",
                _WHITENING_COLUMNS,
            ),
            _row(
                "bert-large-uncased",
                "first-last",
                _WHITENING_README,
                "57.73 61.16 61.17 68.06 70.30 60.34 59.59",
                _WHITENING_COLUMNS,
            ),
        ),
    ),
    Protocol(
        name="information-flow",
        about="Layer by Layer: the mean of every single layer, as mteb scores it",
        source="OFSkean/information_flow, MTEB-Harness.py at 91b0ae3 and text_automodel_wrapper.py at 703d566; "
        "arXiv:2502.02013",
        tasks=_MTEB_NINE,
        aggregation="all",
        sick="all",
        methods=("mean@each",),
        layers="each of 0 to L alone, the model cut to as many blocks",
        pooling="mean over the last n positions of a left-padded text of n tokens, special tokens included",
        text=_MTEB_TEXT,
        length="512 tokens for BERT and RoBERTa, else 2048",
        average=None,
        departures=(
            "of its 32 tasks the nine STS ones are judged; its average is over all 32",
            "where a model has a final norm, it is applied to every layer there and to the last alone here; "
            "`doctor` shows which models differ",
            "it pads every text on the left to the longest of its list, so that in models with absolute positions, "
            "such as BERT, a text's position ids depend on its company; here padding is invisible",
            "it computes in float16, here in float32 unless --dtype says otherwise",
            "texts are cut where the backbone's folder says, unless --max-length says otherwise",
        ),
        unconfirmed=("scores by task and layer: the paper's figures give no numbers that could be read",),
    ),
    Protocol(
        name="layerattpooler",
        about="Layer-wise attention pooling: sub-corpora weighted by their size; trained on NLI triplets",
        source="nlpods/LayerAttPooler, cl/trainers.py and run_sup_layerattnpooler.sh at 9f6b245; arXiv:2209.05972",
        tasks=_SEVEN,
        aggregation="wmean",
        sick="SemEval test",
        methods=("layer-attention+simcse-sup(hard_negative_weight=1.0)",),
        layers="all of 0 to L",
        pooling="first tokens attend to the means over unmasked tokens, special tokens included",
        text=_SENTEVAL_TEXT,
        length="none in evaluation beyond the model's own limit; 64 tokens in training",
        average="eval_avg",
        settings=MappingProxyType(
            {
                "regime": "finetune",
                "train": [["nli"]],
                "epochs": 3,
                "batch_size": 256,
                "lr": 2e-5,
                "lr_new": 2e-5,
                "dev": "stsb-dev",
                "dev_every": 100,
            }
        ),
        departures=(
            "training texts are cut where test texts are",
            "weight decay 0.01 and a warm-up over a tenth of the updates, where theirs has none of either",
            "one process with batches of 256, theirs gathers four of 64; float32, theirs is mixed precision",
            "`--train nli` is what your data folder holds under that name; theirs is nli_for_simcse.csv",
        ),
        unconfirmed=(
            "whether the paper's STS tables use this aggregation, which is the repository's",
            "the paper's scores",
            "settings of its unsupervised variant, which the repository cannot run",
        ),
    ),
    Protocol(
        name="ilse",
        about="ILSE: encoders over the layers of a frozen model, trained on STS-B, as mteb scores them",
        source="tomulanovski/ILSE, README at 2765f13, sts_gin_trainer_precomputed.py, precompute_sts.py and "
        "evaluate_sts_model.py at 7dcebfe; arXiv:2603.22665",
        tasks=_MTEB_EIGHT,
        aggregation="all",
        sick="all",
        methods=(
            "mean@each",
            "layer-graph(steps=2)+mse-cosine",
            "layer-graph(graph=full,steps=2)+mse-cosine",
            "set-encoder+mse-cosine",
            "scalar-mix+mse-cosine",
            "dwatt+mse-cosine",
            "mlp+mse-cosine",
        ),
        layers="all of 0 to L",
        pooling="mean over tokens, special tokens included, of each layer",
        text=_MTEB_TEXT,
        length="2048 tokens",
        average=None,
        settings=MappingProxyType(
            {
                "regime": "frozen",
                "train": [["stsb-train"]],
                "epochs": 50,
                "batch_size": 64,
                "lr_new": 1e-3,
                "dev": "stsb-dev",
                "dev_every": 90,
            }
        ),
        departures=(
            "squared error of the cosine against the score scaled to [0, 1]; theirs maps the cosine from [-1, 1] to "
            "[0, 5] first",
            "AdamW with linear decay; theirs is Adam, weight decay 1e-4, its rate halved when the dev loss stalls",
            "STS-B's training part holds pairs of STS12 to STS16, so those are no unseen tasks, there or here; the "
            "board also gives scores without the known pairs",
            "one set of hyper-parameters an encoder; theirs were searched with Optuna for each model and task",
            "texts are cut where the backbone's folder says, unless --max-length says otherwise",
        ),
        unconfirmed=("the paper's scores", "the hyper-parameters that its search chose"),
    ),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({card.name: card for card in _ALL})


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: none has it; the message suggests the nearest.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = difflib.get_close_matches(name, PROTOCOLS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(PROTOCOLS)}."
    raise InputError(f"no protocol {name!r}. {hint}")
