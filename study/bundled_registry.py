"""Stands for the registry in an exported model, where nobody looks a part up by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

P = TypeVar("P", bound=type)


def register(name: str, **facts: Any) -> Callable[[P], P]:
    """Leaves the class as it is."""
    return lambda part: part
