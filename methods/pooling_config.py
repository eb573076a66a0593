"""What a sentence-transformers folder says of itself: its pooling (the method `native`) and its length limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fusebench.errors import InputError

# Name in sentence-transformers -> part. Older folders have one flag a mode, newer ones a list of modes.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt-len",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last-token",
}
_MODES = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "mean-sqrt-len",
    "weightedmean": "weighted-mean",
    "lasttoken": "last-token",
}


def native_sentence(folder: Path) -> str:
    """The method sentence of the folder's own pooling, e.g. `mean+normalize`.

    Raises:
        InputError: if the folder states none, or one that no sentence can say.
    """
    modules = _read(folder / "modules.json", list)
    if modules is None:
        raise InputError(
            "native: this backbone has no modules.json, so it states no pooling of its own; name one, e.g. mean."
        )
    if not all(isinstance(module, dict) and {"type", "path"} <= module.keys() for module in modules):
        raise InputError("native: modules.json of this backbone does not list modules; fetch it again.")
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise InputError(f"native: this backbone's modules are {', '.join(kinds)}; only pooling is supported.")
    pooling = _read(folder / str(modules[1]["path"]) / "config.json", dict)
    if pooling is None:
        raise InputError("native: the pooling module of this backbone has no config.json; fetch it again.")
    modes = _modes(pooling)
    if len(modes) != 1 or modes[0] not in _MODES.values():
        raise InputError(
            f"native: this backbone pools by {' and '.join(modes) or 'nothing'}; "
            f"one of {', '.join(_MODES.values())} is supported."
        )
    return "+".join([modes[0], *(["normalize"] if "Normalize" in kinds else [])])


def _modes(config: dict[str, Any]) -> list[str]:
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [str(mode) for mode in (named if isinstance(named, list) else [named])]
        return [_MODES.get(mode, mode) for mode in modes]
    # sentence-transformers takes the mean where no flag is set.
    return [part for flag, part in _FLAGS.items() if config.get(flag)] or ["mean"]


def stated_max_length(folder: Path) -> int | None:
    """`max_seq_length` of `sentence_bert_config.json`, or None.

    Raises:
        InputError: if it is no number of tokens.
    """
    stated = (_read(folder / "sentence_bert_config.json", dict) or {}).get("max_seq_length")
    if stated is not None and (type(stated) is not int or stated < 1):
        raise InputError(f"max_seq_length of sentence_bert_config.json is {stated!r}, which is no number of tokens.")
    return stated


def stated_lower_case(folder: Path) -> bool:
    """`do_lower_case` of `sentence_bert_config.json`: lower case whatever the tokenizer itself does."""
    return bool((_read(folder / "sentence_bert_config.json", dict) or {}).get("do_lower_case"))


def _read(path: Path, kind: type) -> Any:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, kind):
            raise ValueError(f"a JSON {type(content).__name__} stands where a {kind.__name__} belongs")
    except ValueError as error:
        raise InputError(f"{path.name} of the backbone cannot be read ({error}); fetch it again.") from error
    return content
