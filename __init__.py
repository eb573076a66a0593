"""FuseBench: which way of turning a transformer's layers into one text embedding is best, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusebench.methods.encoder import Encoder

__all__ = ["load"]


def load(method: str, backbone: str | None = None, *, device: str = "auto", max_length: int | None = None) -> Encoder:
    """An encoder for one method: `fusebench.load("mean+whiten").encode(["a text"])` is a float32 array `[1, dim]`.

    Args:
        method: a sentence or a catalogue name; one method, not a sweep.
        backbone: as behind `--backbone`; None is the embedded default.
        device: as behind `--device`.
        max_length: limit in tokens; None takes the backbone's own.

    Raises:
        InputError: if there is no such method or backbone.
    """
    from fusebench.study.loading import load_encoder

    return load_encoder(method, backbone, device=device, max_length=max_length)
