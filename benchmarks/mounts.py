"""Whether a file system's locks hold between machines, as far as its mount says."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")  # Linux; elsewhere nothing is known
# Options under which flock excludes processes of this machine alone, by type: nfs(5), lustre, mount.cifs(8).
_LOCAL = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}


def locks_are_local(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether `path` lies on a network file system whose locks other machines do not see; False if unknown."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    real = Path(os.path.realpath(path))
    found: tuple[int, bool] = (-1, False)
    for line in lines:
        _, place, kind, options, *_ = line.split(" ")
        where = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place))
        if real.is_relative_to(where) and len(where.parts) >= found[0]:  # a later mount hides an earlier one
            found = len(where.parts), not _LOCAL.get(kind, set()).isdisjoint(options.split(","))
    return found[1]
