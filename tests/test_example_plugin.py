"""The example of a package of one's own, installed as a user would and found without being named."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import fusebench

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "fusebench-midlayer"

# One process for both, because importing torch is what takes the time.
SCRIPT = """
import sys, pytest
from fusebench.run_bench import main
listed = main(["list", "methods"])
sys.exit(listed or pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", sys.argv[1]]))
"""


def test_an_installed_package_is_listed_and_keeps_the_contract_in_its_own_test(tmp_path):
    """In a fresh environment that holds the example; all else comes from the present one."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("no setuptools to build with")
    venv.create(tmp_path / "env", symlinks=os.name != "nt")
    there = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    site = Path(sysconfig.get_path("purelib", scheme="venv", vars=there))
    (site / "present.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    python = Path(sysconfig.get_path("scripts", scheme="venv", vars=there)) / "python"
    shutil.copytree(EXAMPLE, tmp_path / "source")  # building leaves files beside the sources
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation"]
    quiet = ["--no-index", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run([*command, *quiet, tmp_path / "source"], capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    assert (site / "fusebench_midlayer.py").is_file()

    # Not where the sources lie, so that what is imported is what was installed.
    test = shutil.move(tmp_path / "source" / "test_fusebench_midlayer.py", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(fusebench.__file__).parents[1]), "COLUMNS": "200"}
    done = subprocess.run([python, "-c", SCRIPT, test], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("mid-layer"))
    assert "fusion" in lines[place]
    assert "depth=0.5" in lines[place + 1]  # its parameters stand below its formula
    assert "8 passed" in done.stdout
