"""What a wheel of the project installs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("methods", "benchmarks", "study", "testing")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Content of a wheel by file name, built from a copy so that nothing is left beside the sources."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("no setuptools to build with")
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "results", "data")
    shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    built = subprocess.run(
        [*command, "--disable-pip-version-check", "--wheel-dir", folder / "dist", folder / "source"],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (file,) = (folder / "dist").iterdir()
    assert file.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(wheel):
    """The files that describe the wheel, by their own names."""
    described = {name for name in wheel if name.split("/")[0].endswith(".dist-info")}
    return {name.split("/", 1)[1]: wheel[name] for name in described}


def test_exactly_one_name_is_installed(wheel):
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"fusebench"}


def test_every_module_of_the_root_and_of_the_packages_is_in_it(wheel):
    expected = {f"fusebench/{file.name}" for file in ROOT.glob("*.py")}
    expected |= {f"fusebench/{package}/{file.name}" for package in PACKAGES for file in (ROOT / package).glob("*.py")}
    assert {name for name in wheel if name.endswith(".py")} == expected
    assert {"fusebench/run_bench.py", "fusebench/errors.py", "fusebench/study/plan.py"} <= expected


def test_every_package_of_the_sources_is_listed():
    found = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert found == set(PACKAGES)


def test_the_sources_in_it_are_those_of_the_project(wheel):
    for name, content in wheel.items():
        if name.endswith(".py"):
            assert content == (ROOT / name.removeprefix("fusebench/")).read_text(encoding="utf-8")


def test_it_is_typed_and_licensed(wheel, metadata):
    assert "fusebench/py.typed" in wheel
    licences = [name for name in metadata if name.endswith("LICENSE")]
    assert [metadata[name] for name in licences] == [(ROOT / "LICENSE").read_text(encoding="utf-8")]
    assert "License-Expression: Apache-2.0" in metadata["METADATA"]


def test_it_installs_the_command(metadata):
    assert "fusebench = fusebench.run_bench:main" in metadata["entry_points.txt"]
    from fusebench.run_bench import main

    assert callable(main)


def test_nothing_but_code_and_its_description_is_in_it(wheel):
    others = {name for name in wheel if ".dist-info/" not in name and not name.endswith((".py", "/py.typed"))}
    assert others == {f"fusebench/benchmarks/report_page.{kind}" for kind in ("css", "html", "js")}
