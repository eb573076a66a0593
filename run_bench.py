"""The command line: `python run_bench.py --methods` runs the catalogue; `--help` says the rest."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

INSTALL = "fusebench is not installed; in this folder run: python -m pip install -c constraints.txt -e ."


def _in_results(
    show: Callable[[argparse.Namespace], int], flags: argparse.Namespace, *, writes: bool, quiet: bool = False
) -> int:
    """A command whose `--out` may be a bucket."""
    from fusebench.study.results_place import results_in

    with results_in(flags.out, writes=writes, quiet=quiet) as flags.out:
        return show(flags)


def _run(arguments: list[str]) -> int:
    from fusebench.study.flags import run_parser

    parser = run_parser()
    if not arguments:
        parser.print_help()
        return 2
    if not arguments[0].startswith("-"):
        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(COMMANDS)}"
        parser.error(f"no sub-command '{arguments[0]}' ({hint})")
    flags = parser.parse_args(arguments)
    if flags.sweep is not None:
        from fusebench.study import sweep

        return sweep.run_sweep(flags, arguments)
    if flags.protocol is not None:
        from fusebench.study.flags import given_flags
        from fusebench.study.protocol_choice import with_protocol

        flags = with_protocol(flags, given_flags(arguments))
    if flags.methods is None:
        parser.error("nothing to run: add --methods (all of them) or --methods mean,cls")
    from fusebench.study import commands

    return _in_results(commands.run_methods, flags, writes=not flags.dry_run, quiet=flags.quiet)


def _list(arguments: list[str]) -> int:
    from fusebench.study.flags import list_parser

    flags = list_parser().parse_args(arguments)
    from fusebench.study import listing

    return listing.show(flags)


def _report(arguments: list[str]) -> int:
    from fusebench.study.flags import report_parser

    flags = report_parser().parse_args(arguments)
    from fusebench.study import commands

    return _in_results(commands.report, flags, writes=True)


def _compare(arguments: list[str]) -> int:
    from fusebench.study.flags import compare_parser

    flags = compare_parser().parse_args(arguments)
    from fusebench.study import compare

    return _in_results(compare.show, flags, writes=False)


def _gate(arguments: list[str]) -> int:
    from fusebench.study.flags import gate_parser

    flags = gate_parser().parse_args(arguments)
    from fusebench.study import gate

    return _in_results(gate.show, flags, writes=False)


def _verify(arguments: list[str]) -> int:
    from fusebench.study.flags import record_parser

    flags = record_parser("verify", "Scores a record's method again with stock tools, where they can.").parse_args(
        arguments
    )
    from fusebench.study import verify

    return verify.show(flags)


def _replay(arguments: list[str]) -> int:
    from fusebench.study.flags import record_parser

    flags = record_parser("replay", "Runs a record again; says which input changed if it cannot.").parse_args(
        arguments
    )
    from fusebench.study import replay

    return replay.show(flags)


def _diagnose(arguments: list[str]) -> int:
    from fusebench.study.flags import diagnose_parser

    flags = diagnose_parser().parse_args(arguments)
    from fusebench.study import diagnose

    return _in_results(diagnose.show, flags, writes=True)


def _export(arguments: list[str]) -> int:
    from fusebench.study.flags import export_parser

    flags = export_parser().parse_args(arguments)
    from fusebench.study import export

    return _in_results(export.show, flags, writes=False)


def _push(arguments: list[str]) -> int:
    from fusebench.study.flags import push_parser

    flags = push_parser().parse_args(arguments)
    from fusebench.study import push

    return _in_results(push.show, flags, writes=False)


def _doctor(arguments: list[str]) -> int:
    from fusebench.study.flags import doctor_parser

    flags = doctor_parser().parse_args(arguments)
    from fusebench.study import commands

    return commands.doctor(flags)


def _completion(arguments: list[str]) -> int:
    from fusebench.study.flags import completion_parser

    flags = completion_parser().parse_args(arguments)
    from fusebench.study import completion

    return completion.show(flags)


COMMANDS = {
    "run": _run,
    "list": _list,
    "report": _report,
    "compare": _compare,
    "gate": _gate,
    "verify": _verify,
    "replay": _replay,
    "diagnose": _diagnose,
    "export": _export,
    "push": _push,
    "doctor": _doctor,
    "completion": _completion,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Before torch is loaded. Its threads spin while they wait for each other, and beside another busy process they
    # take the processor from the very thread they wait for: a run takes twice as long and more. Asleep, they do not.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from fusebench.benchmarks.atomic import DISK_REFUSES, disk_error
        from fusebench.benchmarks.redaction import redacted
        from fusebench.errors import InputError
        from fusebench.study.freed_memory import keep_freed_memory
    except ModuleNotFoundError:
        print(INSTALL, file=sys.stderr)
        return 2
    keep_freed_memory()
    # Tokenizers warn about forks that mteb's data loaders never make.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    command = COMMANDS.get(arguments[0]) if arguments else None
    started = time.monotonic()
    try:
        code = command(arguments[1:]) if command else _run(arguments)
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted after {time.monotonic() - started:.0f} s; finished cells are kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output, such as head, has seen enough; Python flushes once more on its way out.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        return 141
    except ModuleNotFoundError as error:
        print(f"the package {error.name} is missing; {INSTALL}", file=sys.stderr)
        return 2
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_REFUSES:
            place = Path(str(error.filename or tempfile.gettempdir()))
            print(f"error: {disk_error('write', place, error)}", file=sys.stderr)
            return 2
        # As Python shows it, but for tokens and passwords; 1 is taken by cells that failed.
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        return 70


if __name__ == "__main__":
    raise SystemExit(main())
