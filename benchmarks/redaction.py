"""Finds access tokens and passwords in a text, so that no message, log or record gives them away."""

from __future__ import annotations

import os
import re

_MASK = "[hidden]"
_VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "WANDB_API_KEY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN"),
    "AZURE_CLIENT_SECRET",
)
_SHORTEST = 8  # of a variable's value: a shorter one would hide words
_PATTERNS = (
    r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}",  # the hub's tokens
    r"(?<=://)[^/\s@]+(?=@)",  # name and password in an address
    r"(?i:(?<=bearer )[A-Za-z0-9._~+/-]{8,})",  # of a request's header
)


def redacted(text: str) -> str:
    """`text` with every token and every password of an address hidden."""
    return _secrets().sub(_MASK, text)


def holds_secret(text: str) -> bool:
    """Whether `redacted` would hide something."""
    return any(match.group() != _MASK for match in _secrets().finditer(text))


def _secrets() -> re.Pattern[str]:
    values = [value for name in _VARIABLES if len(value := os.environ.get(name, "")) >= _SHORTEST]
    return re.compile("|".join([*map(re.escape, values), *_PATTERNS]))
