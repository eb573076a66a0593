"""FuseBench: which way of turning a transformer's layers into one text embedding is best, and by how much?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from fusebench.study.library import Embedder

__all__ = ["load", "run"]


def load(
    method: str,
    backbone: str | None = None,
    *,
    device: str = "auto",
    max_length: int | None = None,
    fit: str | None = None,
    data_dir: Path | None = None,
) -> Embedder:
    """An encoder for one method: `fusebench.load("mean+whiten").encode(["a text"])` is a float32 array `[1, dim]`.

    It also speaks as LangChain, scikit-learn, sentence-transformers and mteb (`as_mteb`) expect.

    Args:
        method: a sentence, a catalogue name or the folder of a trained method; one method, not a sweep.
        backbone: as behind `--backbone`; None is the embedded default.
        device: as behind `--device`.
        max_length: limit in tokens; None takes the backbone's own.
        fit: as behind `--fit`, what transforms are fitted on; None is the embedded default.
        data_dir: as behind `--data-dir`, where named fit texts are.

    Raises:
        InputError: if there is no such method or backbone.
    """
    from fusebench.study.library import load_embedder

    return load_embedder(method, backbone, device=device, max_length=max_length, fit=fit, data_dir=data_dir)


def run(methods: str | Sequence[str] = "all", **options: Any) -> pd.DataFrame:
    """Runs as the command line does and returns a row a score: `fusebench.run(["mean", "cls"], tasks=["STS12"])`.

    Records and boards go to `out` and finished cells are kept, as on the command line; a cell that fails is a
    warning and has no row.

    Args:
        methods: sentences or catalogue names; "all" is the catalogue.
        options: the command line's flags by name, `data_dir="DATA"` for `--data-dir DATA`, lists where a flag takes
            several, True for a flag that stands alone.

    Raises:
        InputError: if anything asked for is not there or does not fit.
    """
    from fusebench.study.tabulated_run import run_and_tabulate

    return run_and_tabulate(methods, options)
