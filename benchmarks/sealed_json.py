"""JSON files that carry the sha256 of their own content, so that a flipped bit is found and never believed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SEAL = "content_sha256"


class DamagedError(ValueError):
    """A file whose content is not what was written."""


def sealed_text(held: dict[str, Any]) -> str:
    """The text of a file that holds this object and its seal.

    Raises:
        ValueError: the object holds NaN or infinity, which are no JSON.
    """
    sealed = {**held, SEAL: _seal(held)}
    return json.dumps(sealed, allow_nan=False, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def unsealed(content: bytes) -> Any:
    """What the content of a file holds, without its seal; a file from before there were seals has none.

    Raises:
        DamagedError: it is no JSON, or does not hash to its seal.
    """
    try:
        held = json.loads(content.decode("utf-8"), parse_constant=refuse_constant)
    except DamagedError:
        raise
    except (ValueError, RecursionError) as error:  # a page of brackets exhausts the decoder's stack
        raise DamagedError(f"is truncated or not JSON ({error})") from error
    if isinstance(held, dict) and SEAL in held:
        seal = held.pop(SEAL)
        if seal != _seal(held):
            raise DamagedError(f"is not as it was written: it does not hash to its {SEAL}")
    return held


def refuse_constant(name: str) -> None:
    """Refuses NaN and infinities, which are no JSON."""
    raise DamagedError(f"holds {name}, which is not a number")


def _seal(held: dict[str, Any]) -> str:
    # Of the canonical JSON: white space may change, nothing else. A number beyond the floats, such as 1e999, is read
    # as infinity and hashes to no seal that was written.
    canonical = json.dumps(held, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
