"""How good a factorisation is, with bounds that hold: the error between what was reached and what can be reached.

Let V (n, ℓ) be orthonormal, G = XᵀX, H = VᵀGV, E = GV − VH, and κ ≥ λ_max of G on the complement of V. Then

    λ_i(H) ≤ σ_i²(X) ≤ λ_i(M),   M = [[H, E′ᵀ], [E′, κI]] ⊕ κI,   EᵀE = E′ᵀE′

since G ⪯ M after the change of basis: the left side is Cauchy's interlacing, the right side monotony (Weyl). No gap
between singular values is needed; where there is one, the bounds close with the square of the residual. Rounding in
G V is bounded by the usual γ_k ‖X‖²_F (Higham, *Accuracy and Stability of Numerical Algorithms*, §3.5) and widens them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.lowrank.matrix import Matrix
from assay.records.factorization import Certificate, Guarantee, Uniqueness

UNIT = 2.0**-53
TOLERANCE = 1e-6  # of ‖X‖²: the largest gap that counts as certified


@dataclass(frozen=True)
class Ceiling:
    """``value`` ≥ λ_max of XᵀX on the complement of a space; it fails with probability ``failure_probability``."""

    value: float
    guarantee: Guarantee
    failure_probability: float = 0.0


@dataclass(frozen=True, eq=False)
class SpectrumBounds:
    """``low`` ≤ σ_i² ≤ ``high``, float64 (count,), falling, standing on ``ceiling``."""

    low: Tensor
    high: Tensor
    ceiling: Ceiling


@dataclass(frozen=True)
class Measured:
    """An objective as computed, and the interval in which its exact value lies."""

    value: float
    low: float
    high: float


def bound_spectrum(
    basis: Tensor, gram_v: Tensor, ceiling: Ceiling, *, energy: float, terms: int, count: int
) -> SpectrumBounds:
    """Enclose the ``count`` largest σ² from V, XᵀXV and a ceiling; ``terms`` bounds the length of the sums in XᵀXV."""
    n, ell = basis.shape
    slack = rounding_slack(basis, energy=energy, terms=terms)
    h = basis.T @ gram_v
    h = (h + h.T) / 2
    residual = gram_v - basis @ h
    reduced = torch.linalg.qr(residual).R
    corner = torch.eye(len(reduced), dtype=torch.float64) * ceiling.value
    big = torch.cat([torch.cat([h, reduced.T], 1), torch.cat([reduced, corner], 1)])
    above = torch.cat([torch.linalg.eigvalsh(big), torch.full((count,), ceiling.value, dtype=torch.float64)])
    high = above.sort(descending=True).values[:count] + slack if ell < n else torch.linalg.eigvalsh(h).flip(0) + slack
    low = torch.linalg.eigvalsh(h).flip(0)[:count] - slack
    low = torch.cat([low, torch.zeros(max(0, count - len(low)), dtype=torch.float64)]).clamp_min(0)
    high = torch.minimum(high[:count], torch.tensor(energy * (1 + terms * UNIT * 2))).clamp_min(0)
    return SpectrumBounds(low, torch.maximum(high, low), ceiling)


def rounding_slack(basis: Tensor, *, energy: float, terms: int) -> float:
    """What rounding can have moved any eigenvalue of VᵀXᵀXV and of M, in units of σ²."""
    n, ell = basis.shape
    defect = float(torch.linalg.matrix_norm(basis.T @ basis - torch.eye(ell, dtype=torch.float64)))
    return energy * (4 * (defect + n * ell * UNIT) + 4 * (n + terms + 2 * ell) * UNIT * math.sqrt(ell))


def frobenius_ceiling(basis: Tensor, gram_v: Tensor, *, energy: float, terms: int) -> Ceiling:
    """κ = ‖X‖²_F − tr(VᵀGV): all that is left could lie in one direction. Deterministic, sharp when little is left."""
    left = energy - float((basis * gram_v).sum())
    return Ceiling(max(0.0, left) + rounding_slack(basis, energy=energy, terms=terms), "deterministic")


def gram_ceiling(basis: Tensor, gram: Tensor, *, energy: float, terms: int) -> Ceiling:
    """κ from the whole Gram matrix: a number c is proved to be a ceiling by a Cholesky factorisation of cI − PGP.

    The factorisation in floating point ends without a negative pivot only if cI − PGP + Δ is positive definite, with
    ‖Δ‖ ≤ γ_{n+1}·tr (Rump, *Verification of positive definiteness*, BIT 46 (2006)); the trace term is added to c.
    """
    n = basis.shape[0]
    image = gram @ basis
    h = basis.T @ image
    rest = gram - image @ basis.T - basis @ image.T + basis @ ((h + h.T) / 2) @ basis.T
    rest = (rest + rest.T) / 2
    slack = rounding_slack(basis, energy=energy, terms=terms) + (terms + n) * UNIT * energy
    candidate = _power_estimate(rest) * 1.02 + slack
    for _ in range(40):
        trace = n * candidate + float(rest.diagonal().abs().sum())
        shifted = torch.eye(n, dtype=torch.float64) * candidate - rest
        if int(torch.linalg.cholesky_ex(shifted).info) == 0:
            return Ceiling(candidate + 2 * (n + 1) * UNIT * trace + slack, "deterministic")
        candidate *= 1.1
    return Ceiling(energy, "deterministic")


def random_ceilings(
    matrix: Matrix,
    basis: Tensor,
    start: Tensor,
    image: Tensor,
    *,
    energy: float,
    failure_probability: float,
    steps: int,
) -> Iterator[Ceiling]:
    """κ by block Lanczos on S = PGP, P = I − VVᵀ, after 1, 2, … ``steps`` steps; all of them hold together.

    ``start`` is PΩ with Ω Gaussian (n, b) and fresh, orthonormalised, and ``image`` is G times it. Let u be the leading
    eigenvector of S, x = PΩc the combination of the probes along Ωᵀu, and θ the angle between x and u: tan²θ is
    χ²_{n−1} over an independent χ²_b, bounded but for ``failure_probability``. The largest Ritz value λ̂ after q steps
    is at least the Rayleigh quotient of p(S)x for each polynomial p of degree q − 1. With the one for which
    √(1−ε−t)·p(t) is an odd Chebyshev polynomial of degree 2q − 1, λ̂ < (1−ε)λ would need sinh((2q−1)·arsinh η) < tan θ
    with η² = ε/(1−ε). So λ ≤ (1 + η²)·λ̂, η = sinh(arsinh(tan θ)/(2q−1)), whichever q is looked at.

    Reference: the argument of Kuczyński & Woźniakowski, SIAM J. Matrix Anal. Appl. 13 (1992), for a block of probes.
    """
    from assay.lowrank.krylov import orthonormalize

    n = matrix.shape[1]
    slack = rounding_slack(basis, energy=energy, terms=matrix.rounding_terms)
    angle = math.asinh(largest_tangent(n, start.shape[1], failure_probability=failure_probability))
    span, images, fresh = start[:, :0], start[:, :0], start
    for step in range(1, steps + 1):
        image = image - basis @ (basis.T @ image)
        span, images = torch.cat([span, fresh], 1), torch.cat([images, image], 1)
        small = span.T @ images
        top = max(0.0, float(torch.linalg.eigvalsh((small + small.T) / 2)[-1]))
        growth = 1 + math.sinh(angle / (2 * step - 1)) ** 2
        fresh = orthonormalize(image, span)[:, : max(0, n - basis.shape[1] - span.shape[1])]
        if fresh.shape[1] == 0:  # the probes have seen all there is
            growth = 1.0
        yield Ceiling((top + slack) * growth + slack, "probabilistic", failure_probability)
        if fresh.shape[1] == 0 or step == steps:
            return
        image = matrix.apply_gram(fresh)


def largest_tangent(n: int, probes: int, *, failure_probability: float) -> float:
    """t with P[√(χ²_{n−1}/χ²_b) > t] at most ``failure_probability``, half of it for each of the two."""
    from scipy.stats import chi2

    share = failure_probability / 2
    return math.sqrt(float(chi2.isf(share, max(1, n - 1))) / float(chi2.ppf(share, probes)))


def write_certificate(
    bounds: SpectrumBounds, measured: Measured, *, rank: int, ridge: float, energy: float
) -> Certificate:
    """Put the measured objective against the enclosed optimum Σ… of rank ``rank``."""
    low, high = bounds.low[:rank], bounds.high[:rank]
    keep_low, keep_high = _shrunk(low, ridge), _shrunk(high, ridge)
    rounding = energy * (rank + 8) * UNIT
    optimum_low = max(0.0, energy - float(keep_high.sum()) - rounding)
    optimum_high = max(optimum_low, min(energy - float(keep_low.sum()) + rounding, measured.high))
    gap = max(0.0, measured.high - optimum_low)
    relative = gap / energy if energy else 0.0
    certified = relative <= TOLERANCE
    what = f"the gap may be {relative:.1e} of ‖X‖², more than {TOLERANCE:.0e}"
    return Certificate(
        guarantee=bounds.ceiling.guarantee,
        failure_probability=bounds.ceiling.failure_probability,
        certified=certified,
        reason="" if certified else what,
        tolerance=TOLERANCE,
        energy=energy,
        ridge=ridge,
        error=measured.value,
        error_low=measured.low,
        error_high=measured.high,
        optimum_low=optimum_low,
        optimum_high=optimum_high,
        gap_high=gap,
        relative_gap=relative,
        singular_low=tuple(bounds.low.sqrt().tolist()),
        singular_high=tuple(bounds.high.sqrt().tolist()),
        uniqueness=_uniqueness(bounds, rank, energy=energy, ridge=ridge),
    )


def no_certificate(measured: float, *, energy: float, ridge: float, reason: str) -> Certificate:
    """A certificate that certifies nothing, and says why."""
    return Certificate(
        guarantee="none",
        failure_probability=1.0,
        certified=False,
        reason=reason,
        tolerance=TOLERANCE,
        energy=energy,
        ridge=ridge,
        error=measured,
        error_low=0.0,
        error_high=math.inf,
        optimum_low=0.0,
        optimum_high=math.inf,
        gap_high=math.inf,
        relative_gap=math.inf,
        singular_low=(),
        singular_high=(),
        uniqueness="undecided",
    )


def _shrunk(squares: Tensor, ridge: float) -> Tensor:
    """((σ − λ)₊)²: by how much each singular value lowers the objective."""
    return (squares.sqrt() - ridge).clamp_min(0).square()


def _uniqueness(bounds: SpectrumBounds, rank: int, *, energy: float, ridge: float) -> Uniqueness:
    """Is σ_r apart from σ_{r+1}? Equal ones leave a whole family of equally good row spaces, beyond the gauge."""
    if len(bounds.low) <= rank:
        return "unique up to gauge" if float(bounds.low[rank - 1]) > 0 else "tied"
    last, following = float(bounds.low[rank - 1]), float(bounds.high[rank])
    if last > following:
        return "unique up to gauge"
    if float(bounds.high[rank - 1]) <= ridge * ridge:
        return "unique up to gauge"
    spread = float(bounds.high[rank - 1]) - float(bounds.low[rank])
    return "tied" if spread <= 1e-9 * energy else "undecided"


def _power_estimate(symmetric: Tensor) -> float:
    """A little less than, or about, the largest eigenvalue of a positive semi-definite matrix."""
    from assay.runtime import generator

    block = torch.randn(len(symmetric), 4, generator=generator(0x30), dtype=torch.float64)
    for _ in range(12):
        block = torch.linalg.qr(symmetric @ block).Q
    return max(0.0, float(torch.linalg.eigvalsh(block.T @ symmetric @ block)[-1]))
