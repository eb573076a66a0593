"""What a sentence-transformers folder says of its texts: length limit and lower case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fusebench.errors import InputError


def stated_max_length(folder: Path) -> int | None:
    """`max_seq_length` of `sentence_bert_config.json`, or None.

    Raises:
        InputError: if it is no number of tokens.
    """
    stated = (read_stated(folder / "sentence_bert_config.json", dict) or {}).get("max_seq_length")
    if stated is not None and (type(stated) is not int or stated < 1):
        raise InputError(f"max_seq_length of sentence_bert_config.json is {stated!r}, which is no number of tokens.")
    return stated


def stated_lower_case(folder: Path) -> bool:
    """`do_lower_case` of `sentence_bert_config.json`: lower case whatever the tokenizer itself does."""
    return bool((read_stated(folder / "sentence_bert_config.json", dict) or {}).get("do_lower_case"))


def read_stated(path: Path, kind: type) -> Any:
    """What a JSON file of a backbone's folder holds, or None if there is no such file.

    Raises:
        InputError: if it is no JSON of this kind.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, kind):
            raise ValueError(f"a JSON {type(content).__name__} stands where a {kind.__name__} belongs")
    except ValueError as error:
        raise InputError(f"{path.name} of the backbone cannot be read ({error}); fetch it again.") from error
    return content
