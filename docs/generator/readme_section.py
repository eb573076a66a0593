"""A section of the README as a page of its own, so that what it says is written once."""

from __future__ import annotations

import re
from pathlib import Path


def write(readme: Path, heading: str, page: Path) -> None:
    """Writes the section below `## heading` as a page with that title.

    Raises:
        ValueError: if the README has no such section.
    """
    sections = re.split(r"^## ", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for section in sections[1:]:
        title, _, text = section.partition("\n")
        if title == heading:
            page.write_text(f"# {title}\n{text}", encoding="utf-8")
            return
    raise ValueError(f"{readme.name} has no section '{heading}'")
