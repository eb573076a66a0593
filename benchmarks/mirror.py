"""A results folder on this machine that is kept in step with an object store, so that nothing else needs to know."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fusebench.benchmarks.atomic import atomic_write, slug
from fusebench.benchmarks.object_store import ObjectStore
from fusebench.benchmarks.store import Store
from fusebench.errors import InputError

# What a command may read; boards and pages follow from it. README.md tells whose the prefix is.
_READ = ("runs", "mteb", "samples", "suites", "sweeps", "training", "trained", "tests", "diagnostics", "protocols")
# What is published while a command runs, before records and trained methods.
_WORK = ("mteb", "samples", "suites", "sweeps")
_BOARDS = ("leaderboards", "figures", "scores.csv", "scores.parquet", "report.html")
# Files whose names say what is in them: two of one name hold the same results.
_NAMED_BY_CONTENT = ("runs", "mteb", "samples", "trained")

_INDEX, _MARK = "mirror.json", "fusebench.json"
_SECONDS = 2.0  # between two looks at what is new
_SHARE = 20  # a look takes at most one part in so many of a core's time; waiting for the network takes none
_AT_ONCE = 256  # objects

_LOG = logging.getLogger(__name__)
_OPEN: dict[Path, Mirror] = {}


class Mirror:
    """The folder behind a URL, below `$FUSEBENCH_CACHE` (default `~/.cache/fusebench`), and what of it is published.

    Args:
        url: such as `s3://bucket/prefix`.

    Raises:
        InputError: the URL cannot be used, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.objects = ObjectStore(url)
        self.url = self.objects.url
        cache = os.environ.get("FUSEBENCH_CACHE") or Path.home() / ".cache" / "fusebench"
        self.folder = Path(cache).absolute() / "mirrors" / slug(self.objects.identity)
        self._lock = threading.Lock()
        self._published = self._index()
        self._weights: set[str] = set()  # in the bucket, not fetched

    def require_writable(self) -> None:
        """Fails now, and not after an hour of computing, if nothing can be put into the bucket.

        Raises:
            InputError: nothing can be put there.
        """
        mark = self.folder / _MARK
        atomic_write(mark, json.dumps({"holds": "results of FuseBench; see README.md"}) + "\n")
        self.objects.put({_MARK: mark})

    def fetch(self) -> int:
        """Brings what the bucket has and the folder lacks, weights apart; how many objects that were.

        Files that change in time are brought anew unless the folder has news of them; what is gone from the bucket
        counts as not published.

        Raises:
            InputError: the bucket or the disk refuses, or a link in the folder leads out of it.
        """
        Store(self.folder).require_no_way_out()
        there = [name for name in self.objects.names() if name.split("/")[0] in (*_READ, "README.md")]
        self._weights = {name for name in there if name.startswith("trained/") and not _is_card(name)}
        with self._lock:
            found = set(there)
            self._published = {name: state for name, state in self._published.items() if name in found}
        return self._bring(name for name in there if name not in self._weights and self._lacks(name))

    def fetch_weights(self, folders: Collection[Path]) -> int:
        """Brings what the bucket has of these folders of trained methods; how many objects that were.

        Raises:
            InputError: the bucket or the disk refuses.
        """
        inside = (folder for folder in folders if folder.is_relative_to(self.folder))
        wanted = {folder.relative_to(self.folder).as_posix() for folder in inside}
        asked = (name for name in sorted(self._weights) if name.rpartition("/")[0] in wanted)
        return self._bring(name for name in asked if self._lacks(name))

    def publish(self, *, boards: bool = False) -> int:
        """Puts what is new in the folder into the bucket; how many objects that were.

        A record comes after what it stands for, and the card of a trained method after its weights: who reads one of
        them has all of it, wherever this process ends.

        Args:
            boards: whether boards are published too.

        Raises:
            InputError: the bucket refuses or cannot be reached; what could not be put is put by the next call.
        """
        with self._lock:
            # Listed in the reverse order: what a file stands for was written before it, so it is listed too.
            records = self._news(["runs"])
            cards = [name for name in self._news(["trained"]) if _is_card(name) and not self._is_trained_there(name)]
            with_cards = [card.rpartition("/")[0] for card in cards] + (["training"] if cards else [])
            others = {*_READ, *_BOARDS} - {"runs", "trained"} if boards else set()
            beside = [name for name in self._news(sorted({*_WORK, *others, *with_cards})) if name not in cards]
            front = self._news(["README.md"]) if boards else []
            for names in filter(None, (beside, cards, records, front)):
                self._put(names)
            return len(beside) + len(cards) + len(records) + len(front)

    def _is_trained_there(self, card: str) -> bool:
        """Whether another machine has published this training since; then its weights stand, and ours are no news."""
        if card in self._published or not self.objects.has(card):
            return False
        self._note({name: self._state(name) for name in self._files(card.rpartition("/")[0])})
        return True

    def try_to_publish(self, level: int = logging.WARNING) -> bool:
        """Publishes if that is possible now; else it is logged, because it is tried again."""
        try:
            self.publish()
        except InputError as error:
            _LOG.log(level, "not published yet, and safe in %s: %s", self.folder, error)
            return False
        return True

    def exchange(self) -> None:
        """Publishes, then fetches what others have published, if that is possible now."""
        if not self.try_to_publish():
            return
        try:
            self.fetch()
        except InputError as error:
            _LOG.warning("boards may lack what other machines have published meanwhile: %s", error)

    def _put(self, names: Sequence[str]) -> None:
        for some in _chunks(names):
            states = {name: self._state(name) for name in some}  # of now: what changes meanwhile is news again
            self.objects.put({name: self.folder / name for name in some})
            self._note(states)

    def _bring(self, names: Iterable[str]) -> int:
        wanted = list(names)
        for some in _chunks(wanted):
            self.objects.fetch(some, self.folder)
            with self._lock:
                self._note({name: self._state(name) for name in some})
        return len(wanted)

    def _note(self, states: Mapping[str, list[int] | None]) -> None:
        self._published.update({name: state for name, state in states.items() if state})
        atomic_write(self.folder / _INDEX, json.dumps({"url": self.url, "published": self._published}))

    def _lacks(self, name: str) -> bool:
        state = self._state(name)
        lasting = name.startswith(tuple(f"{part}/" for part in _NAMED_BY_CONTENT))
        return state is None or (not lasting and state == self._published.get(name))

    def _news(self, parts: Iterable[str]) -> list[str]:
        """The files of these parts that are not in the bucket as they are here."""
        names = (name for part in parts for name in self._files(part))
        return [name for name in names if (state := self._state(name)) and state != self._published.get(name)]

    def _files(self, part: str) -> Iterator[str]:
        if (self.folder / part).is_file():
            yield part
        for folder, _, files in os.walk(self.folder / part):
            below = Path(folder).relative_to(self.folder).as_posix()
            yield from (f"{below}/{name}" for name in sorted(files) if not name.startswith("."))

    def _state(self, name: str) -> list[int] | None:
        """What changes with the content of a file; None if there is none."""
        try:
            found = (self.folder / name).stat()
        except FileNotFoundError:
            return None
        return [found.st_size, found.st_mtime_ns, found.st_ino]

    def _index(self) -> dict[str, list[int]]:
        path = self.folder / _INDEX
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["published"]) if path.exists() else {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be used ({error}); delete it, and run again.") from error


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """So many at a time: what went well before a fault is not done again."""
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def _is_card(name: str) -> bool:
    return name.startswith("trained/") and name.endswith("/method.json")


def mirror_of(folder: Path) -> Mirror | None:
    """The mirror that this process keeps in this folder, if it is one."""
    return _OPEN.get(folder)


def shown_place(folder: Path) -> str:
    """What a reader elsewhere knows a results folder by: its URL, if it is a mirror, else its name."""
    mirror = mirror_of(folder)
    return folder.resolve().name if mirror is None else mirror.url


@contextmanager
def mirrored(url: str, *, writes: bool) -> Iterator[Mirror]:
    """A mirror that holds what the bucket holds; within, what is finished is published as it comes, at the end all.

    Args:
        url: such as `s3://bucket/prefix`.
        writes: whether anything is published at all.

    Raises:
        InputError: the bucket cannot be read or, if `writes`, written; at the end, if something could not be
            published: then it stays in the folder, and the next time publishes it.
    """
    mirror = Mirror(url)
    if writes:
        mirror.require_writable()
    mirror.fetch()
    _OPEN[mirror.folder] = mirror
    try:
        with _published_as_it_comes(mirror) if writes else nullcontext():
            yield mirror
    except BaseException:
        if writes:
            mirror.try_to_publish()  # and the user is told what has ended the command
        raise
    else:
        if writes:
            _publish_all(mirror)
    finally:
        del _OPEN[mirror.folder]


@contextmanager
def _published_as_it_comes(mirror: Mirror) -> Iterator[None]:
    over = threading.Event()
    publisher = threading.Thread(target=_publish_until, args=(over, mirror), daemon=True)
    publisher.start()
    try:
        yield
    finally:
        over.set()
        publisher.join()


def _publish_all(mirror: Mirror) -> None:
    try:
        mirror.publish(boards=True)
    except InputError as error:
        raise InputError(
            f"{str(error).rstrip('.')}; nothing is lost: what is not published is in {mirror.folder}, and the same "
            "command publishes it."
        ) from error


def _publish_until(over: threading.Event, mirror: Mirror) -> None:
    pause, level = _SECONDS, logging.WARNING
    while not over.wait(pause):
        started = time.thread_time()
        level = logging.WARNING if mirror.try_to_publish(level) else logging.DEBUG  # one fault is said once
        pause = max(_SECONDS, _SHARE * (time.thread_time() - started))
