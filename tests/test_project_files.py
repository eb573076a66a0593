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
TABLES = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TABLES["project"]
WORKFLOWS = ROOT / ".github" / "workflows"
GATE = ROOT / "examples" / "github-actions-gate.yml"


def steps(path, name=None):
    """The job of that name, else the first, and the commands that it runs."""
    jobs = yaml.safe_load(path.read_text())["jobs"]
    job = jobs[name] if name else next(iter(jobs.values()))
    return job, [step["run"] for step in job["steps"] if "run" in step]


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == PROJECT["version"]


def test_ci_runs_the_tests_of_the_readme_on_every_python_from_the_oldest_supported():
    job, run = steps(WORKFLOWS / "ci.yml")
    assert run == ["bash .ci/run"]
    assert "grep" in (ROOT / ".ci" / "run").read_text()
    versions = job["strategy"]["matrix"]["python-version"]
    assert versions == [f"3.{minor}" for minor in range(11, 11 + len(versions))]
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_ci_builds_the_documentation_with_what_its_extra_installs():
    _, run = steps(ROOT / ".github" / "workflows" / "ci.yml", "docs")
    assert run[-1] == "make docs PYTHON=python"
    assert run[:-1] == ['python -m pip install -c constraints.txt -e ".[docs]"']
    assert re.search(r"^docs:\n\t.* -m sphinx -W ", (ROOT / "Makefile").read_text(), re.MULTILINE)


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


def test_both_ends_of_the_versions_are_tried_on_the_pythons_of_ci():
    job, run = steps(WORKFLOWS / "versions.yml")
    assert job["strategy"]["matrix"]["end"] == ["oldest", "newest"]
    assert (
        job["strategy"]["matrix"]["python-version"]
        == steps(WORKFLOWS / "ci.yml")[0]["strategy"]["matrix"]["python-version"]
    )
    assert any(f"scripts/{script.name} " in " ".join(run) for script in (ROOT / "scripts").glob("version_matrix.py"))


def test_the_wheel_and_the_image_are_tried_with_commands_that_there_are():
    jobs = yaml.safe_load((WORKFLOWS / "package.yml").read_text())["jobs"]
    lines = [line for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()]
    lines += re.findall(r"^#   (docker run .*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    tried = [re.search(r"fusebench(?::cuda)? (--methods.*)", line) for line in lines]
    asked = [run_parser().parse_args(shlex.split(found[1])).methods for found in tried if found]
    assert asked == [[["mean"]], [["mean"]], [["mean,cls"]], [[]]]


def test_the_image_is_built_of_what_the_wheel_is_made_of_and_of_nothing_else():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = {name.partition(".")[2] for name in TABLES["tool"]["setuptools"]["packages"]} - {""}
    described = {
        PROJECT["readme"],
        *PROJECT["license-files"],
        "pyproject.toml",
        "constraints.txt",
        "*.py",
        "py.typed",
    }
    assert let_in == packages | described


def test_every_extra_can_be_installed_with_the_versions_that_were_tested():
    """A pin for each package that an extra names, and within its range."""
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    needs = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    for need in map(Requirement, needs):
        assert need.specifier.contains(pins[need.name.lower()], prereleases=True), need
