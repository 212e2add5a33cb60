"""How far a factorisation, of ours or of anybody's, can be from the optimum: bounds that hold, rounding included.

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
from typing import Literal

import torch
from torch import Tensor

from assay.arguments import checked
from assay.errors import DataError, OptionError
from assay.lowrank.factors import gram_of
from assay.lowrank.krylov import RitzSpace, block_krylov, orthonormalize
from assay.lowrank.matrix import BLOCK_BYTES, Matrix, Scaled, block_rows
from assay.lowrank.ranks import RankRule
from assay.lowrank.solvers import CHEAP_GRAM, GRAM_LIMIT
from assay.lowrank.sources import as_matrix, measure_energy
from assay.records.factorization import Certificate, Guarantee, Uniqueness
from assay.runtime import generator

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
    """``low`` ≤ σ_i² ≤ ``high``, float64 (count,), falling, given ``ceiling``."""

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
    ritz = torch.linalg.eigvalsh(h).flip(0)
    low, above = ritz[:count] - slack, ritz
    if ell < n:
        reduced = torch.linalg.qr(gram_v - basis @ h).R
        corner = torch.eye(len(reduced), dtype=torch.float64) * ceiling.value
        big = torch.cat([torch.cat([h, reduced.T], 1), torch.cat([reduced, corner], 1)])
        above = torch.cat([torch.linalg.eigvalsh(big), torch.full((count,), ceiling.value, dtype=torch.float64)])
    high = above.sort(descending=True).values[:count] + slack
    low = torch.cat([low, torch.zeros(max(0, count - len(low)), dtype=torch.float64)]).clamp_min(0)
    high = torch.minimum(high[:count], torch.tensor(energy * (1 + terms * UNIT * 2))).clamp_min(0)
    return SpectrumBounds(low, torch.maximum(high, low), ceiling)


def rounding_slack(basis: Tensor, *, energy: float, terms: int) -> float:
    """What rounding can have moved any eigenvalue of VᵀXᵀXV and of M, in units of σ²."""
    n, ell = basis.shape
    defect = float(torch.linalg.matrix_norm(basis.T @ basis - torch.eye(ell, dtype=torch.float64)))
    return energy * (4 * (defect + n * ell * UNIT) + 4 * (n + terms + 2 * ell) * UNIT * math.sqrt(ell))


def gram_ceiling(basis: Tensor, gram: Tensor, *, energy: float, terms: int) -> Ceiling:
    """κ from the Gram matrix: a number c is proved to be a ceiling by a Cholesky factorisation of cI − PGP.

    The factorisation in floating point ends without a negative pivot only if cI − PGP + Δ is positive definite, with
    ‖Δ‖ ≤ γ_{n+1}·tr (Rump, *Verification of positive definiteness*, BIT 46 (2006)); the trace term is added to c.
    """
    n = basis.shape[0]
    image = gram @ basis
    h = basis.T @ image
    rest = gram - image @ basis.T - basis @ image.T + basis @ ((h + h.T) / 2) @ basis.T
    rest = (rest + rest.T) / 2
    slack = rounding_slack(basis, energy=energy, terms=terms) + (terms + n) * UNIT * energy
    inside = rest
    if n > CHEAP_GRAM:  # power iteration, which stays below
        block = torch.randn(n, 4, generator=generator(0x30), dtype=torch.float64)
        for _ in range(12):
            block = torch.linalg.qr(rest @ block).Q
        inside = block.T @ rest @ block
    estimate = max(0.0, float(torch.linalg.eigvalsh(inside)[-1]))
    size = float(rest.diagonal().abs().sum())
    # a narrow margin first: where σ_r is repeated, a ceiling that is 2 % too high is no use
    for margin in (1e-9, *(1.02 * 1.1**power - 1 for power in range(40))):
        candidate = estimate * (1 + margin) + slack
        shifted = torch.eye(n, dtype=torch.float64) * candidate - rest
        if int(torch.linalg.cholesky_ex(shifted).info) == 0:
            return Ceiling(candidate + 2 * (n + 1) * UNIT * (n * candidate + size) + slack, "deterministic")
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

    Also λ ≤ λ̂ + ‖R‖/cos θ, R = SQ − QT on the basis Q of the probes' Krylov space, T = QᵀSQ: if λ > λ̂, then
    (λ − λ̂)·‖Qᵀu‖ ≤ ‖(λI − T)Qᵀu‖ = ‖Rᵀu‖, and ‖Qᵀu‖ ≥ cos θ as x lies in the space. That is sharp where the space is
    invariant, as it soon is among repeated singular values.

    Reference: the argument of Kuczyński & Woźniakowski, SIAM J. Matrix Anal. Appl. 13 (1992), for a block of probes.
    """
    n = matrix.shape[1]
    slack = rounding_slack(basis, energy=energy, terms=matrix.rounding_terms)
    angle = math.asinh(largest_tangent(n, start.shape[1], failure_probability=failure_probability))
    span, images, fresh = start[:, :0], start[:, :0], start
    for step in range(1, steps + 1):
        image = image - basis @ (basis.T @ image)
        span, images = torch.cat([span, fresh], 1), torch.cat([images, image], 1)
        small = span.T @ images
        top = max(0.0, float(torch.linalg.eigvalsh((small + small.T) / 2)[-1])) + slack
        growth = 1 + math.sinh(angle / (2 * step - 1)) ** 2
        residual = float(torch.linalg.matrix_norm(images - span @ small)) + slack
        ceiling = min(top * growth, top + math.cosh(angle) * residual) + slack
        fresh = orthonormalize(image, span)[:, : max(0, n - basis.shape[1] - span.shape[1])]
        yield Ceiling(ceiling, "probabilistic", failure_probability)
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
    return Certificate(
        guarantee=bounds.ceiling.guarantee,
        failure_probability=bounds.ceiling.failure_probability,
        certified=certified,
        reason="" if certified else f"the gap may be {relative:.1e} of ‖X‖², more than {TOLERANCE:.0e}",
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
        uniqueness=_uniqueness(bounds, rank, ridge=ridge),
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


def _uniqueness(bounds: SpectrumBounds, rank: int, *, ridge: float) -> Uniqueness:
    """Is σ_r apart from σ_{r+1}? Equal ones leave a family of equally good row spaces, beyond the gauge."""
    if len(bounds.low) <= rank:
        return "unique up to gauge" if float(bounds.low[rank - 1]) > 0 else "tied"
    shrunk_to_zero = ridge > 0 and float(bounds.high[rank - 1]) <= ridge * ridge
    if bool(bounds.low[rank - 1] > bounds.high[rank]) or shrunk_to_zero:
        return "unique up to gauge"
    high, low, next_low = float(bounds.high[rank - 1]), float(bounds.low[rank - 1]), float(bounds.low[rank])
    return "tied" if low - next_low <= 1e-8 * high and high - next_low <= 1e-4 * high else "undecided"


Assurance = Literal["auto", "strict", "none"]
ASSURANCES = ("auto", "strict", "none")
PROBES = 32
MOST_UNDECIDED = 3  # ceilings after which it may stay undecided whether σ_r and σ_{r+1} differ


@checked
def certify(
    X: object, A: Tensor, B: Tensor, *, ridge: float = 0.0, assurance: Assurance = "auto", seed: int = 0
) -> Certificate:
    """How far X ≈ AB can be from the best factorisation of its rank, whoever made it.

    ``A`` (m, r), ``B`` (r, n); tensors or arrays. The optimum is enclosed by a block Krylov space of our own and the
    error is measured entry by entry, so nothing depends on how A and B were computed.
    Raises :class:`DataError` when the shapes do not fit or a factor is not finite, :class:`OptionError` for a ridge
    below zero and for no assurance.
    """
    if not 0 <= ridge < math.inf:
        raise OptionError("ridge", expected="a number of at least 0", got=ridge)
    if assurance not in {"auto", "strict"}:
        raise OptionError("assurance", expected="auto or strict", got=repr(assurance))
    matrix = as_matrix(X)
    if not matrix.replayable:
        raise DataError("X", expected="a matrix that can be read more than once", got="an iterator")
    a, b = torch.as_tensor(A).detach().cpu(), torch.as_tensor(B).detach().cpu()
    m, n = matrix.shape
    if matrix.stored_transposed:
        a, b = b.T, a.T
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or (a.shape[0], b.shape[1]) != (m, n):
        got = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise DataError("A, B", expected=f"({m}, r) and (r, {n})", got=got)
    if not 1 <= a.shape[1] <= min(m, n):
        raise DataError("A", expected=f"1..{min(m, n)} columns", got=a.shape[1])
    for name, factor in (("A", a), ("B", b)):
        if factor.is_complex():
            raise DataError(name, expected="real numbers", got=factor.dtype)
        if not bool(factor.isfinite().all()):
            raise DataError(name, expected="finite numbers", got=f"{int((~factor.isfinite()).sum())} non-finite")
    matrix, energy = measure_energy(matrix)
    if isinstance(matrix, Scaled):
        raise DataError("X", expected="entries whose squares stay in range: scale X and A", got="a matrix out of it")
    if matrix.in_memory and m < n:
        matrix, a, b = matrix.transposed(), b.T, a.T
    return certify_factors(matrix, a, b, energy=energy, ridge=ridge, assurance=assurance, seed=seed)


def certify_factors(
    matrix: Matrix,
    A: Tensor,
    B: Tensor,
    *,
    space: RitzSpace | None = None,
    gram: Tensor | None = None,
    energy: float,
    ridge: float,
    assurance: Assurance,
    seed: int,
) -> Certificate:
    """The same for checked factors, reusing the space and the Gram matrix of a solver."""
    rank, n = A.shape[1], matrix.shape[1]
    squares = torch.empty(0) if space is None else space.squares
    tied = len(squares) > rank and bool(squares[rank] >= 0.999 * squares[rank - 1])
    if (space is None or tied) and n <= CHEAP_GRAM:
        # Exact directions: beside them, whatever little the rows of B add would be noise that loosens the bounds.
        gram = matrix.gram() if gram is None else gram
        bases = [torch.linalg.eigh(gram).eigenvectors.flip(1)[:, : 2 * rank + 8]]
    else:
        # The rows of B come first, so that ⟨X, AB⟩ needs no reading of its own; they span a solver's directions.
        known = 0 if space is None or ridge else rank
        if space is None:
            rule = RankRule(rank=rank)
            space = block_krylov(matrix, rule, energy=energy, accuracy=TOLERANCE / 10, seed=seed + 1)
        # Beside a repeated σ_r, directions that the solver has half found couple to it, and loosen the bounds. Where
        # its other copies are not found at all, only the loose bounds show it.
        widest = min(2 * rank + 8, space.basis.shape[1])
        settled = min(widest, space.settled)
        bases = [
            torch.linalg.qr(torch.cat([B.double().T, space.basis[:, known:last]], 1)).Q
            for last in dict.fromkeys((settled,) if tied else (widest, settled))
        ]
    certificates: list[Certificate] = []
    for basis in bases:
        certificates.append(
            _enclose(matrix, A, B, basis, gram, energy=energy, ridge=ridge, assurance=assurance, seed=seed)
        )
        if certificates[-1].certified:
            break
    return min(certificates, key=lambda certificate: certificate.gap_high)


def _enclose(
    matrix: Matrix,
    A: Tensor,
    B: Tensor,
    basis: Tensor,
    gram: Tensor | None,
    *,
    energy: float,
    ridge: float,
    assurance: Assurance,
    seed: int,
) -> Certificate:
    """The best certificate that bounds on ``basis`` give: with each ceiling in turn, until one certifies."""
    rank, n = A.shape[1], matrix.shape[1]
    if gram is None and n <= 3 * basis.shape[1]:
        gram = matrix.gram()
    reading = _read(matrix, A, B, basis, gram, energy=energy, seed=seed)
    measured = measure_objective(matrix, A, B, reading, ridge=ridge)
    count = min(rank + 1, *matrix.shape)
    terms = matrix.rounding_terms
    best: Certificate | None = None
    for place, ceiling in enumerate(_ceilings(matrix, reading, gram, assurance=assurance)):
        bounds = bound_spectrum(basis, reading.gram_v, ceiling, energy=energy, terms=terms, count=count)
        bounds.high[0] += energy * _summation(matrix)  # the rounding of ‖X‖², which enters the optimum as well
        certificate = write_certificate(bounds, measured, rank=rank, ridge=ridge, energy=energy)
        if best is None or certificate.gap_high < best.gap_high:
            best = certificate
        if certificate.certified and (certificate.uniqueness != "undecided" or place >= MOST_UNDECIDED):
            break
    assert best is not None
    return best


@dataclass(frozen=True, eq=False)
class _Reading:
    """From one reading of X in float64: XᵀXV, ‖X − AB‖², and XᵀX times random probes where they may be needed.

    ``in_basis``: the error was computed from the part of B that lies in the basis.
    """

    basis: Tensor
    energy: float
    gram_v: Tensor
    error: float
    entrywise: bool
    in_basis: bool
    probes: Tensor
    image: Tensor


def _read(
    matrix: Matrix, A: Tensor, B: Tensor, basis: Tensor, gram: Tensor | None, *, energy: float, seed: int
) -> _Reading:
    none = basis[:, :0]
    if gram is not None:
        error = matrix.squared_error(A, B)
        return _Reading(basis, energy, gram @ basis, error, matrix.residual_is_entrywise, False, none, none)
    n, ell = basis.shape
    drawn = torch.randn(n, max(0, min(PROBES, n - ell)), generator=generator(seed, 0x20), dtype=torch.float64)
    probes = orthonormalize(drawn - basis @ (basis.T @ drawn), basis)
    image, cross = matrix.apply_gram_across(torch.cat([basis, probes], 1), A)
    rows = basis.T @ B.double().T  # B in the basis, (ℓ, r)
    size = float((gram_of(A, matrix) * (B.double() @ B.double().T)).sum())
    error = max(0.0, energy - 2 * float((rows * cross[:ell]).sum()) + size)
    # After a good fit the rounding of this difference would exceed the error itself.
    entrywise = matrix.residual_is_entrywise and error <= 1e-3 * energy
    if entrywise:
        error = matrix.squared_error(A, B)
    return _Reading(basis, energy, image[:, :ell], error, entrywise, not entrywise, probes, image[:, ell:])


def measure_objective(matrix: Matrix, A: Tensor, B: Tensor, reading: _Reading, *, ridge: float) -> Measured:
    """f with its rounding: each entry of X − AB is off by at most (r+2)u(|X| + |A||B|), and sums by γ_k."""
    size_a = math.sqrt(float(gram_of(A, matrix).trace()))
    size_b = float(torch.linalg.matrix_norm(B.double()))
    magnitude = math.sqrt(reading.energy) + size_a * size_b
    value = reading.error + ridge * (size_a**2 + size_b**2)
    if reading.entrywise:
        entry = (A.shape[1] + 4) * UNIT * magnitude
        rounding = 2 * math.sqrt(reading.error) * entry + entry**2
    else:
        rounding = (matrix.rounding_terms + 4 * matrix.shape[1] + 8) * UNIT * magnitude**2
        if reading.in_basis:
            outside = B.double().T - reading.basis @ (reading.basis.T @ B.double().T)  # rounding of the basis, measured
            rounding += 2 * math.sqrt(reading.energy) * size_a * float(torch.linalg.matrix_norm(outside))
    rounding += _summation(matrix) * value
    return Measured(value, max(0.0, value - rounding), value + rounding)


def _ceilings(matrix: Matrix, reading: _Reading, gram: Tensor | None, *, assurance: Assurance) -> Iterator[Ceiling]:
    """Ceilings from cheap to expensive; the caller stops at the first that is low enough."""
    basis, energy, terms = reading.basis, reading.energy, matrix.rounding_terms
    n, ell = basis.shape
    if ell >= n:
        yield Ceiling(0.0, "deterministic")
        return
    # κ = ‖X‖²_F − tr(VᵀGV): all that is left could lie in one direction; sharp when little is left
    left = energy - float((basis * reading.gram_v).sum())
    yield Ceiling(max(0.0, left) + rounding_slack(basis, energy=energy, terms=terms), "deterministic")
    if gram is None and (n <= CHEAP_GRAM or (assurance == "strict" and n <= GRAM_LIMIT)):
        gram = matrix.gram()
    if gram is not None:
        yield gram_ceiling(basis, gram, energy=energy, terms=terms)
    elif assurance == "auto":
        yield from random_ceilings(
            matrix, basis, reading.probes, reading.image, energy=energy, failure_probability=1e-9, steps=8
        )


def _summation(matrix: Matrix) -> float:
    """Relative error of a sum of squares over blocks."""
    return (BLOCK_BYTES // 8 + matrix.shape[0] // block_rows(matrix.shape[1]) + 4) * UNIT
