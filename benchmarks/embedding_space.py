"""What is measured of the vectors of one method: its quantities, their names and how to read them."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from fusebench.benchmarks import geometry

NEIGHBOURS = 10

CONVENTIONS = (
    "rows of length 1 for anisotropy, uniformity (t = 2), alignment (squared distance) and hubness (k = 10, cosine); "
    "centred for effective rank, IsoScore and linear CKA; as they are for norms"
)


class Quantity(NamedTuple):
    """A number of `Space`: its field, what it is called, how to read it, and with how many decimals."""

    field: str
    name: str
    reading: str
    digits: int = 3

    def text(self, value: float) -> str:
        """The number as tables show it; what rounds to 0 has no sign."""
        return f"{round(value, self.digits) + 0.0:.{self.digits}f}"


QUANTITIES = (
    Quantity("anisotropy", "anisotropy", "mean cosine of two texts; 1: all point one way"),
    Quantity("uniformity", "uniformity", "lower: more even on the sphere"),
    Quantity("alignment", "alignment", "squared distance of pairs that belong together; lower: closer"),
    Quantity("effective_rank", "effective rank", "directions in use, by singular values", 1),
    Quantity("isoscore", "IsoScore", "how evenly variance is spread over the dimensions; 1: all alike"),
    Quantity("hubness", "hubness", "skewness of how often a text is a neighbour; 0: no hubs"),
    Quantity("antihubs", "antihubs", "share of texts that are no neighbour of any text"),
    Quantity("norm", "norm", "mean length of a vector", 2),
    Quantity("norm_spread", "norm spread", "standard deviation of the lengths over their mean"),
)


class Space(BaseModel):
    """The vectors of one method; see `QUANTITIES`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dim: int
    anisotropy: float
    uniformity: float
    alignment: float
    effective_rank: float
    isoscore: float
    hubness: float
    antihubs: float
    norm: float
    norm_spread: float


def space_of(X: geometry.Floats, left: geometry.Floats, right: geometry.Floats) -> Space:
    """All quantities of the vectors of texts, `[texts, dim]`, and of pairs that belong together, `[pairs, dim]`.

    Raises:
        ArithmeticError: the vectors are not finite, have no direction, do not differ, or are too few.
    """
    U = geometry.unit(X)
    lengths = geometry.norms(X)
    variances = geometry.principal_variances(X)
    occurrences = geometry.k_occurrences(U, NEIGHBOURS)
    return Space(
        dim=X.shape[1],
        anisotropy=geometry.anisotropy(U),
        uniformity=geometry.uniformity(U),
        alignment=geometry.alignment(geometry.unit(left), geometry.unit(right)),
        effective_rank=geometry.effective_rank(variances),
        isoscore=geometry.isoscore(variances),
        hubness=geometry.skewness(occurrences),
        antihubs=float((occurrences == 0).mean()),
        norm=float(lengths.mean()),
        norm_spread=float(lengths.std() / lengths.mean()),
    )
