"""Lists what an installation brings along, each with its licence, as the installed packages state it themselves.

    python scripts/licences.py

Follows the requirements of this project, extras aside, through all packages that they require here. Writes
results/faults/licences.md; says which are copyleft, and exits with 1 if one states no licence that it knows.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tabulate import tabulate

from fusebench.benchmarks.atomic import atomic_write

ROOT = Path(__file__).resolve().parents[1]
# The first that matches, because the names of some licences are parts of others'.
KINDS = (
    ("network copyleft", r"AGPL|Affero"),
    ("weak copyleft", r"LGPL|Lesser|Library General|MPL|Mozilla"),
    ("strong copyleft", r"GPL|GNU General|EUPL|CDDL"),
    ("permissive", r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|HPND|Unlicense|CC0|Zlib|zlib"),
)
_LONGEST = 60  # a field that is longer holds the licence's text


@dataclass(frozen=True)
class Licence:
    """What a package states."""

    package: str
    version: str
    stated: str

    @property
    def kind(self) -> str:
        """Whether it obliges whoever passes the package on to pass on its source."""
        return next((kind for kind, words in KINDS if re.search(words, self.stated)), "UNKNOWN")


def licence_of(name: str) -> Licence:
    """The SPDX expression of a package, else its classifiers, else the first line of its licence field."""
    facts = importlib.metadata.metadata(name)
    classifiers = [one.split(" :: ")[-1] for one in facts.get_all("Classifier", []) if one.startswith("License ::")]
    free = (facts.get("License") or "").strip().split("\n")[0][:_LONGEST]
    stated = facts.get("License-Expression") or ", ".join(one for one in classifiers if one != "OSI Approved") or free
    return Licence(canonicalize_name(facts["Name"]), facts["Version"], stated)


def required(name: str) -> Iterator[str]:
    """The packages that an installed one requires in this environment, extras that it asks for included."""
    waiting, seen = [(name, "")], set()
    while waiting:
        if (one := waiting.pop()) in seen:
            continue
        seen.add(one)
        package, extra = one
        for text in importlib.metadata.requires(package) or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(need.name), asked) for asked in ("", *need.extras)]
    yield from sorted({package for package, _ in seen} - {name})


def page(licences: list[Licence]) -> str:
    """The table, copyleft and unknown ones first."""
    rows = sorted(licences, key=lambda one: (one.kind == "permissive", one.package))
    table = tabulate([(r.package, r.version, r.stated, r.kind) for r in rows], tablefmt="github", headers=_HEADERS)
    notable = [f"{one.package} ({one.stated or 'states none'})" for one in rows if one.kind != "permissive"]
    return (
        "# Licences of what an installation brings along\n\n"
        f"Made by `python scripts/licences.py`: {len(rows)} packages; none of them is copied into this project. "
        f"Not permissive alone: {', '.join(notable) or 'none'}. A build of torch for GPUs brings NVIDIA's packages "
        f"too, under NVIDIA's own terms.\n\n{table}\n"
    )


_HEADERS = ("package", "version", "licence, as the package states it", "kind")


def main() -> int:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults")
    flags = parser.parse_args()
    licences = [licence_of(name) for name in required("fusebench")]
    atomic_write(flags.out / "licences.md", page(licences))
    unknown = [one.package for one in licences if one.kind == "UNKNOWN"]
    print(f"{len(licences)} packages; no licence known: {', '.join(unknown) or 'none'}")
    return 1 if unknown else 0


if __name__ == "__main__":
    raise SystemExit(main())
