"""A prefix of an object store, through fsspec: objects are listed, fetched and put whole; none is ever deleted."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fusebench.benchmarks.redaction import holds_secret, redacted
from fusebench.errors import InputError

# By scheme, the package that fsspec needs. All of them put an object whole or not at all, which file systems that
# fsspec also knows (sftp, hdfs, file) do not.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "memory": "fsspec"}
# What says, beside the URL, which server's bucket it is.
_SERVERS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST", "AZURE_STORAGE_ACCOUNT_NAME")
# Our own names, and none that could lead out of a folder or that an operating system reads in its own way.
_NAME = re.compile(r"(?!\.)[^/\\:*?\"<>|\x00-\x1f]+(/(?!\.)[^/\\:*?\"<>|\x00-\x1f]+)*")


class ObjectStore:
    """What lies below a URL such as `s3://bucket/prefix`; credentials are those that the environment has.

    Nothing is asked for before the first call. Names are relative to the URL, with slashes.

    Raises:
        InputError: no such URL is understood, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        scheme, _, place = url.partition("://")
        self.url = f"{scheme}://{place.strip('/')}"
        if holds_secret(url):
            raise InputError(
                f"--out {redacted(url)}: leave out what stands before the @; credentials come from the environment."
            )
        if scheme not in _PACKAGES:
            raise InputError(f"--out {url}: name a folder, without file://, or a bucket by s3://, gs:// or az://.")
        if not place.strip("/"):
            raise InputError(f"--out {url} names no bucket: write {scheme}://BUCKET/PREFIX.")
        if importlib.util.find_spec(_PACKAGES[scheme]) is None:
            what = '"fusebench[object-store]"' if _PACKAGES[scheme] == "s3fs" else _PACKAGES[scheme]
            raise InputError(f"--out {url} needs the package {_PACKAGES[scheme]}: python -m pip install {what}.")
        import fsspec

        with self._asking("open"):
            self._files, self._root = fsspec.core.url_to_fs(self.url, skip_instance_cache=True)

    @property
    def identity(self) -> str:
        """The URL and whatever of the environment says which server it is on."""
        return " ".join([self.url, *(os.environ[name] for name in _SERVERS if os.environ.get(name))])

    def names(self) -> list[str]:
        """All objects below the URL; those whose names could not be files of ours are left out.

        Raises:
            InputError: the store refuses or cannot be reached, or there is no such bucket.
        """
        with self._asking("list"):
            self._files.invalidate_cache()
            found = self._files.find(self._root)
        names = [path.removeprefix(f"{self._root}/") for path in found]
        return sorted(name for name in names if _NAME.fullmatch(name))

    def has(self, name: str) -> bool:
        """Whether there is such an object now.

        Raises:
            InputError: the store refuses or cannot be reached.
        """
        with self._asking("look into"):
            self._files.invalidate_cache()
            return bool(self._files.exists(f"{self._root}/{name}"))

    def fetch(self, names: Sequence[str], folder: Path) -> None:
        """Writes objects as files of the same names; each is there whole or not at all.

        Raises:
            InputError: the store or the disk refuses, or the store cannot be reached.
        """
        halves = {name: (folder / name).with_name(f".{secrets.token_hex(8)}.tmp") for name in names}
        try:
            with self._asking("fetch objects from"):
                self._files.get([f"{self._root}/{name}" for name in names], [str(half) for half in halves.values()])
                for name, half in halves.items():
                    half.replace(folder / name)
        finally:
            for half in halves.values():
                half.unlink(missing_ok=True)

    def put(self, files: Mapping[str, Path]) -> None:
        """Puts files as objects of these names, in the place of older ones; readers see the old or the new object.

        Raises:
            InputError: the store refuses or cannot be reached; some of the objects may have been put.
        """
        with self._asking("put objects into"):
            self._files.put([str(path) for path in files.values()], [f"{self._root}/{name}" for name in files])

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each backend raises what its own libraries raise
            lines = redacted(str(error)).splitlines() or [""]
            raise InputError(
                f"cannot {what} {self.url} ({type(error).__name__}: {lines[0]}); check the name, the credentials "
                "in the environment, and the network."
            ) from error
