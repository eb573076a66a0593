"""Where and with what a cell is computed: versions, machine, commit."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from fusebench.benchmarks.record import Environment

# Packages whose version can move a score.
SOFTWARE = ("torch", "transformers", "tokenizers", "mteb", "numpy", "scipy")

_ALSO = ("sentence-transformers", "datasets", "pytrec-eval-terrier", "scikit-learn")


@functools.cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed version of each package."""
    return {name: importlib.metadata.version(name) for name in packages}


def environment() -> Environment:
    """This machine, now."""
    commit, dirty = _git()
    return Environment(
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        processor=_processor(),
        git_commit=commit,
        git_dirty=dirty,
        versions=versions((*SOFTWARE, *_ALSO)),
    )


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


@functools.cache
def _git() -> tuple[str | None, bool | None]:
    """Commit of the clone this code runs from, and whether its source files differ from it; None outside one."""
    home = Path(__file__).resolve().parent.parent
    if not (home / ".git").exists():
        return None, None
    try:
        commit = _output(["git", "rev-parse", "HEAD"], home)
        changes = _output(["git", "status", "--porcelain", "--", ".", ":!results"], home)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changes)


def _output(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
