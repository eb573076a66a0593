"""Feeds seeded hostile input to everything that reads what people write, and counts what comes out.

    python scripts/fuzz.py --inputs 100000

Stops with the seed at the first input that gives anything but the project's own error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the inputs are those of the tests

from tests.fuzzed_inputs import READERS, fuzz  # noqa: E402


def main() -> int:
    """Runs the inputs, shared equally among the readers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input of each reader")
    flags = parser.parse_args()
    each = flags.inputs // len(READERS)
    for name, reader in READERS.items():
        with tempfile.TemporaryDirectory() as folder:
            accepted, refused = fuzz(reader, Path(folder), range(flags.seed, flags.seed + each))
        print(f"{name}: {each} inputs, {accepted} accepted, {refused} refused, nothing else came out", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
