"""Whether the project works at both ends of the version ranges that it declares, on each Python.

    python scripts/version_matrix.py --python 3.11 3.12 3.13

Needs uv. For each Python and end it makes an environment in build/versions with the oldest (or newest) version of
every declared package that comes as a wheel, and runs the tests that lean on other packages most. PyTorch is its
build for processors; where none can be had, `--torch` fixes its version, or takes the one that the Python itself has
(`--torch system`, as with Debian's python3-torch), and the page says so. Rows of earlier calls stay. Writes
results/versions/version_matrix.{json,md}; exit code 1 if a test fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SYSTEM = "system"  # in the place of a version: the torch that the Python itself has
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
# What loads models, trains, scores with mteb, stores, exports and draws; the rest is arithmetic of our own.
TESTS = ("backbones", "checkpoint", "export", "figures", "html_report", "library", "mteb_bridge", "parser", "run",
         "samples", "scores_table", "train")  # fmt: skip


def uv(*arguments: str | Path) -> None:
    """Runs uv in the project."""
    subprocess.run(["uv", *map(str, arguments)], cwd=ROOT, check=True)


def environment(python: str, end: str, torch: str | None, folder: Path) -> Path:
    """A fresh environment with one end of all ranges; its interpreter."""
    system = torch == SYSTEM
    uv("venv", "-q", "--clear", "--python", python, *(["--system-site-packages"] if system else []), folder / "venv")
    interpreter = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    fixed, chosen = folder / "fixed.txt", folder / "requirements.txt"
    # A marker that never holds takes torch out of the resolution.
    wanted = "torch; python_version < '3'" if system else f"torch=={torch}" if torch else ""
    fixed.write_text(wanted + "\n", encoding="utf-8")
    common = ["-q", "--python", interpreter, *([] if torch else ["--torch-backend", "cpu"])]
    resolution = ["--resolution", RESOLUTIONS[end], "--extra", "dev", "--only-binary", ":all:"]
    uv("pip", "compile", *common, *resolution, "--overrides", fixed, "-o", chosen, "pyproject.toml")
    uv("pip", "install", *common, "--no-deps", "-r", chosen)  # all of them are listed
    uv("pip", "install", *common, "--no-deps", "-e", ROOT)
    return interpreter


def declared() -> list[str]:
    """The packages that the project needs, in its own order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[<>=!~ ]", line, maxsplit=1)[0] for line in project["dependencies"]]


def versions(interpreter: Path) -> dict[str, str]:
    """What is installed of the declared packages, and the Python itself."""
    ask = (
        "import importlib.metadata as m, json, platform, sys\n"
        "print(json.dumps({'python': platform.python_version(), **{name: m.version(name) for name in sys.argv[1:]}}))"
    )
    done = subprocess.run([interpreter, "-c", ask, *declared()], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def tested(interpreter: Path, report: Path) -> dict[str, int]:
    """Runs the tests; how many passed, failed and were skipped."""
    report.unlink(missing_ok=True)
    files = [f"tests/test_{name}.py" for name in TESTS]
    subprocess.run([interpreter, "-m", "pytest", "-q", f"--junitxml={report}", *files], cwd=ROOT, check=False)
    (suite,) = ElementTree.parse(report).getroot()
    ran, skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    return {"passed": ran - failed - skipped, "failed": failed, "skipped": skipped}


def page(rows: list[dict[str, Any]]) -> str:
    """The table: a column an environment, a line a package."""
    heads = [f"{row['versions']['python']}, {row['end']}" for row in rows]
    lines = [
        "# Versions",
        "",
        "Made by `python scripts/version_matrix.py`: the oldest and newest versions that pyproject.toml admits, and "
        f"what the tests of {', '.join(TESTS)} say there.",
        "",
        f"| | {' | '.join(heads)} |",
        f"| --- |{' ---: |' * len(rows)}",
    ]
    lines += [
        f"| tests {what} | {' | '.join(str(row['tests'][what]) for row in rows)} |"
        for what in ("passed", "failed", "skipped")
    ]
    for name in declared():
        marks = ["*" if name == "torch" and row["torch_fixed"] else "" for row in rows]
        cells = [row["versions"].get(name, "") + mark for row, mark in zip(rows, marks, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if any(row["torch_fixed"] for row in rows):
        lines += ["", "\\* chosen by `--torch`, because no other build could be had there."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Goes through the environments and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=["3.11"], metavar="VERSION_OR_PATH")
    parser.add_argument("--end", nargs="+", default=list(RESOLUTIONS), choices=RESOLUTIONS)
    parser.add_argument("--torch", metavar="VERSION", help="this one at both ends, such as 2.13.0+cpu, or system")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "versions")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    held = flags.out / "version_matrix.json"
    rows = json.loads(held.read_text(encoding="utf-8")) if held.exists() else []
    failed = 0
    for python in flags.python:
        for end in flags.end:
            folder = ROOT / "build" / "versions" / f"{python.strip('/').replace('/', '-')}-{end}"
            folder.mkdir(parents=True, exist_ok=True)
            interpreter = environment(python, end, flags.torch, folder)
            row = {"end": end, "torch_fixed": flags.torch is not None, "versions": versions(interpreter)}
            row["tests"] = tested(interpreter, folder / "tests.xml")
            failed += row["tests"]["failed"]
            minor = row["versions"]["python"].rpartition(".")[0]
            rows = [r for r in rows if (r["versions"]["python"].rpartition(".")[0], r["end"]) != (minor, end)]
            rows = sorted(
                [*rows, row], key=lambda r: ([int(n) for n in r["versions"]["python"].split(".")], r["end"])
            )
            held.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            (flags.out / "version_matrix.md").write_text(page(rows), encoding="utf-8")
            print(f"{row['versions']['python']}, {end}: {row['tests']}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
