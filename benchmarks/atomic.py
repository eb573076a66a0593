"""How a text becomes a file: under a safe name, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from pathlib import Path

from fusebench.errors import InputError

_READABLE = 60
_PLAIN = re.compile(r"[a-z0-9]([a-z0-9._+=-]*[a-z0-9])?")
_HASHED = re.compile(r".*-[0-9a-f]{10}")
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")

_FULL = "free some space and run again"
_FORBIDDEN = "name a folder that you may write to with --out"
_IN_THE_WAY = "something stands where this belongs: move it, or name another folder with --out"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
}

# Of the disk and not of one file: what any library may run into when it writes.
DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def slug(text: str) -> str:
    """A file name for `text`: lower-case ASCII, readable, at most 71 characters, another for every text.

    A text that is already such a name stays as it is; any other gets the first 10 hexadecimal digits of its
    sha256, which also keeps names apart that differ only in case.
    """
    reserved = _WINDOWS_DEVICE.fullmatch(text) or _HASHED.fullmatch(text)
    if _PLAIN.fullmatch(text) and not reserved and len(text) <= _READABLE:
        return text
    readable = re.sub(r"[^a-z0-9._+=]+", "-", text.lower())[:_READABLE].strip("._+=-") or "x"
    if _WINDOWS_DEVICE.fullmatch(readable):
        readable = readable.replace(".", "-")  # Windows opens the device for "nul.anything" too
    return f"{readable}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def disk_error(action: str, path: Path, error: OSError) -> InputError:
    """The error a user sees for a file that cannot be written or moved."""
    advice = _ADVICE.get(error.errno or 0, "check the disk and run again")
    return InputError(f"cannot {action} {path}: {error.strerror or error}; {advice}. Earlier files are unchanged.")


def atomic_write(path: Path, content: str | bytes) -> None:
    """Writes bytes, or text as UTF-8, so that readers, now or after a crash, see the old file or the new one.

    Missing folders are made.

    Raises:
        InputError: the disk refused; the old file is as it was and no temporary file is left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content.encode("utf-8") if isinstance(content, str) else content)
    except OSError as error:
        raise disk_error("write", path, error) from error


def _replace(path: Path, content: bytes) -> None:
    # Beside the target, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # open() and not mkstemp(): the user's umask decides who may read results.
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 -- named as the call that tests make fail
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a power cut. Windows cannot open a folder and some network file
    # systems refuse to sync one: the file is complete there all the same.
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
