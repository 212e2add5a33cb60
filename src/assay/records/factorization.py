"""What a factorisation X ≈ AB was, how good it provably is, and what its landscape looks like."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record

Guarantee = Literal["deterministic", "probabilistic", "none"]
Uniqueness = Literal["unique up to gauge", "tied", "undecided"]


class Certificate(Frozen):
    """How far a factorisation can be from the best of its rank.

    The objective is f(A, B) = ‖X − AB‖²_F + λ(‖A‖²_F + ‖B‖²_F), its optimum ‖X‖² − Σ_{i≤r} (σ_i − λ)₊² plus 2λ-terms
    already inside (σ² − (σ−λ)₊² a value). ``error`` is f as measured, truly within [``error_low``, ``error_high``];
    the optimum lies within [``optimum_low``, ``optimum_high``], so f is at most ``gap_high`` above it.
    ``relative_gap`` is gap_high/‖X‖², infinite without a guarantee.

    ``guarantee`` tells what stands behind the bounds: ``deterministic`` (arithmetic and rounding bounds alone),
    ``probabilistic`` (they fail with probability at most ``failure_probability`` over the random probes), ``none``.
    ``certified`` is True when the guarantee holds and relative_gap ≤ ``tolerance``; else ``reason`` says why not.
    ``singular_low`` and ``singular_high`` enclose σ_1, …, σ_r (and σ_{r+1} where it is known).
    """

    guarantee: Guarantee
    failure_probability: float
    certified: bool
    reason: str
    tolerance: float
    energy: float
    ridge: float
    error: float
    error_low: float
    error_high: float
    optimum_low: float
    optimum_high: float
    gap_high: float
    relative_gap: float
    singular_low: tuple[float, ...]
    singular_high: tuple[float, ...]
    uniqueness: Uniqueness


class RankPoint(Frozen):
    """The smallest relative error ‖X − X_r‖_F/‖X‖_F that any factorisation of rank r can have."""

    rank: int
    relative_error: float


class GaugePoint(Frozen):
    """The same product seen from (cA, B/c): its sharpness λmax = 2σ₁(c² + 1/c²) and Hessian condition number."""

    scale: float
    loss: float
    sharpness: float
    condition: float


class DescentPath(Frozen):
    """The steps of one method over the plane A = a·u₁, B = b·v₁ᵀ, where the loss is (σ₁ − ab)² + Σ_{i>1} σ_i²."""

    method: str
    a: tuple[float, ...]
    b: tuple[float, ...]
    loss: tuple[float, ...]


class CriticalPoint(Frozen):
    """A balanced critical point built on the singular values of places ``chosen`` (0 is the largest).

    ``kind`` is ``global minimum``, ``strict saddle`` or ``degenerate``; ``most_negative`` the smallest eigenvalue
    of the Hessian there, predicted and computed (NaN where the Hessian was too large to form); ``gauge_dimension`` the
    dimension of the set of equally good factors around a minimum.
    """

    chosen: tuple[int, ...]
    kind: Literal["global minimum", "strict saddle", "degenerate"]
    loss: float
    most_negative: float
    computed: float
    gauge_dimension: int


class Landscape(Record):
    """The surface f(A, B) = ‖X − AB‖²_F around its critical points.

    ``witness`` is (f(P), f(Q), f((P+Q)/2)) for two minimisers P and Q whose midpoint is higher: f is not convex.
    ``predicted`` and ``computed`` are the eigenvalues of the Hessian at the balanced optimum, rising (``computed`` is
    empty for sizes beyond ``r(m+n)`` = 2000); ``largest_difference`` compares them.
    """

    kind: Literal["landscape"] = "landscape"
    rows: int
    columns: int
    rank: int
    witness: tuple[float, float, float]
    sharpness: float
    safe_step: float
    predicted: tuple[float, ...]
    computed: tuple[float, ...]
    largest_difference: float
    critical_points: tuple[CriticalPoint, ...]
    paths: tuple[DescentPath, ...]
    leading: float
    tied: bool


class PictureRank(Frozen):
    """A picture rebuilt at one rank: ``psnr`` in dB against the original, ``share`` of its numbers, PNG in base64."""

    rank: int
    psnr: float
    energy_kept: float
    share: float
    png: str


class FactorizationReport(Record):
    """One factorisation: how it was found, what it holds, and its certificate.

    ``predicted_seconds`` is the cost model's estimate for each method that could have been used.
    ``singular_values`` are those of X, as many as were computed; ``energy_kept`` is Σ_{i≤r} σ_i²/‖X‖². ``missed`` says
    what ``rule`` asked for and the factors do not keep, by their measured error; "" where they keep it.
    """

    kind: Literal["factorization_report"] = "factorization_report"
    source: str
    rows: int
    columns: int
    entries: int
    rank: int
    rule: str
    missed: str = ""
    method: str
    seconds: float
    passes: int
    predicted_seconds: dict[str, float]
    singular_values: tuple[float, ...]
    energy_kept: float
    relative_error: float
    certificate: Certificate
    curve: tuple[RankPoint, ...] = ()
    gauge: tuple[GaugePoint, ...] = ()
    landscape: Landscape | None = None
    pictures: tuple[PictureRank, ...] = ()
