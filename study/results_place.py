"""`--out`: a folder, or a bucket behind a URL, which a command sees as a folder that is kept in step with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from fusebench.study.screen import Screen

Place = TypeVar("Place", bound=Path | None)


@contextmanager
def results_in(place: Place | str, *, writes: bool, quiet: bool = False) -> Iterator[Place | Path]:
    """The folder of `--out`; of a URL its mirror, which holds what the bucket holds, trained weights apart.

    Args:
        place: what the flag gave: a path, the text of a URL, or None, which stays None.
        writes: whether what comes into the folder is published.
        quiet: whether nothing is said of it.

    Raises:
        InputError: the bucket cannot be used, or at the end not everything could be published.
    """
    if not isinstance(place, str):
        yield place
        return
    from fusebench.benchmarks.mirror import mirrored

    messages = Screen(stderr=True, quiet=quiet)
    with mirrored(place, writes=writes) as mirror:
        _say(messages, f"{mirror.url} is mirrored in {mirror.folder}")
        yield mirror.folder
    if writes:
        _say(messages, f"published: {mirror.url}")


def _say(messages: Screen, line: str) -> None:
    messages.print(line, highlight=False, markup=False, soft_wrap=True)
