"""What is written about the project for other programs agrees with the project."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from fusebench.study.flags import gate_parser, run_parser

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GATE = ROOT / "examples" / "github-actions-gate.yml"


def steps(path, name=None):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    job = jobs[name or next(iter(jobs))]
    return job, [step["run"] for step in job["steps"] if "run" in step]


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == PROJECT["version"]


def test_ci_runs_the_tests_of_the_readme_on_every_python_from_the_oldest_supported():
    job, run = steps(ROOT / ".github" / "workflows" / "ci.yml")
    assert run == ["bash .ci/run"]
    assert "grep" in (ROOT / ".ci" / "run").read_text()
    versions = job["strategy"]["matrix"]["python-version"]
    assert versions == [f"3.{minor}" for minor in range(11, 11 + len(versions))]
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_ci_audits_what_is_pinned():
    _, (audit,) = steps(ROOT / ".github" / "workflows" / "ci.yml", "audit")
    assert "pip-audit==" in audit
    assert audit.endswith("--requirement constraints.txt")


def commands():
    """Every fusebench command of the example, in its comments and its steps."""
    text = GATE.read_text()
    return re.findall(r"^(?:#   | +run: )fusebench (.*)$", text, re.MULTILINE)


def test_the_example_of_a_gate_has_commands_to_make_the_baseline_and_to_compare():
    assert [command.split()[0] for command in commands()] == ["--methods", "gate", "gate"]
    assert commands()[-1] in " ".join(steps(GATE)[1])


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_example_are_ones_that_there_are(command):
    first, *rest = shlex.split(command)
    if first == "gate":
        flags = gate_parser().parse_args(rest)
        assert flags.baseline == Path("baseline.json")
        assert flags.update == (flags.reason is not None)
        assert flags.update or (flags.junit, flags.markdown) == (Path("gate.xml"), Path("gate.md"))
    else:
        assert run_parser().parse_args([first, *rest]).methods == [["mean,my-fusion"]]
