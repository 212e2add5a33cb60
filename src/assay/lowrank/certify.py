"""Certify a factorisation: ours, or anybody's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from assay.errors import DataError
from assay.lowrank.certificate import (
    TOLERANCE,
    UNIT,
    Ceiling,
    Measured,
    SpectrumBounds,
    bound_spectrum,
    frobenius_ceiling,
    gram_ceiling,
    random_ceilings,
    write_certificate,
)
from assay.lowrank.factors import gram_of
from assay.lowrank.krylov import RitzSpace, block_krylov, orthonormalize
from assay.lowrank.matrix import BLOCK_BYTES, Matrix, Scaled, block_rows
from assay.lowrank.ranks import RankRule
from assay.lowrank.solvers import CHEAP_GRAM, GRAM_LIMIT
from assay.lowrank.sources import as_matrix, measure_energy
from assay.records.factorization import Certificate
from assay.runtime import generator

Assurance = Literal["auto", "strict", "none"]
ASSURANCES = ("auto", "strict", "none")
PROBES = 32
PATIENCE = 3  # ceilings after which σ_r and σ_{r+1} may stay untold apart


def certify(
    X: object, A: Tensor, B: Tensor, *, ridge: float = 0.0, assurance: Assurance = "auto", seed: int = 0
) -> Certificate:
    """How far X ≈ AB can be from the best factorisation of its rank, whoever made it.

    ``A`` (m, r), ``B`` (r, n); tensors or arrays. The optimum is enclosed by a block Krylov space of our own and the
    error is measured entry by entry, so nothing depends on how A and B were found.
    Raises :class:`DataError` when the shapes do not fit or a factor is not finite.
    """
    matrix = as_matrix(X)
    if not matrix.replayable:
        raise DataError("X", expected="a matrix that can be read more than once", got="an iterator")
    a, b = torch.as_tensor(A), torch.as_tensor(B)
    m, n = matrix.shape
    if bool(getattr(matrix, "fortran", False)):
        a, b = b.T, a.T
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or (a.shape[0], b.shape[1]) != (m, n):
        got = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise DataError("A, B", expected=f"({m}, r) and (r, {n})", got=got)
    if not 1 <= a.shape[1] <= min(m, n):
        raise DataError("A", expected=f"1..{min(m, n)} columns", got=a.shape[1])
    for name, factor in (("A", a), ("B", b)):
        if not bool(factor.isfinite().all()):
            raise DataError(name, expected="finite numbers", got=f"{int((~factor.isfinite()).sum())} non-finite")
    matrix, energy = measure_energy(matrix)
    if isinstance(matrix, Scaled):
        raise DataError("X", expected="entries whose squares stay in range: scale X and A", got="a matrix out of it")
    if matrix.in_memory and m < n:
        matrix, a, b = matrix.transposed(), b.T, a.T
    return certify_factors(
        matrix, a, b, space=None, gram=None, energy=energy, ridge=ridge, assurance=assurance, seed=seed
    )


def certify_factors(
    matrix: Matrix,
    A: Tensor,
    B: Tensor,
    *,
    space: RitzSpace | None,
    gram: Tensor | None,
    energy: float,
    ridge: float,
    assurance: Assurance,
    seed: int,
) -> Certificate:
    """The same for checked factors, reusing the space and the Gram matrix of a solver."""
    rank, n = A.shape[1], matrix.shape[1]
    if space is None and n <= CHEAP_GRAM and matrix.residual_is_entrywise:
        # Exact directions: beside them, whatever little the rows of B add would be noise that loosens the bounds.
        gram = matrix.gram()
        basis = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, : 2 * rank + 8]
    else:
        # The rows of B come first, so that ⟨X, AB⟩ needs no reading of its own; they span a solver's directions.
        known = 0 if space is None or ridge else rank
        if space is None:
            rule = RankRule(rank=rank)
            space = block_krylov(matrix, rule, energy=energy, accuracy=TOLERANCE / 10, seed=seed + 1)
        basis = torch.linalg.qr(torch.cat([B.double().T, space.basis[:, known : 2 * rank + 8]], 1)).Q
    if gram is None and n <= 3 * basis.shape[1]:
        gram = matrix.gram()
    seen = _look(matrix, A, B, basis, gram, energy=energy, seed=seed)
    measured = measure_objective(matrix, A, B, seen, ridge=ridge)
    count = min(rank + 1, *matrix.shape)
    terms = matrix.rounding_terms
    best: Certificate | None = None
    for place, ceiling in enumerate(_ceilings(matrix, seen, gram, assurance=assurance)):
        bounds = bound_spectrum(basis, seen.gram_v, ceiling, energy=energy, terms=terms, count=count)
        certificate = write_certificate(
            _with_summation_error(bounds, energy, matrix), measured, rank=rank, ridge=ridge, energy=energy
        )
        if best is None or certificate.gap_high < best.gap_high:
            best = certificate
        if certificate.certified and (certificate.uniqueness != "undecided" or place >= PATIENCE):
            break
    assert best is not None
    return best


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one reading of X in float64 tells: XᵀXV, ‖X − AB‖², and XᵀX times random probes where they may be needed."""

    basis: Tensor
    energy: float
    gram_v: Tensor
    error: float
    entrywise: bool
    probes: Tensor
    image: Tensor


def _look(
    matrix: Matrix, A: Tensor, B: Tensor, basis: Tensor, gram: Tensor | None, *, energy: float, seed: int
) -> _Seen:
    none = basis[:, :0]
    if gram is not None:
        error = matrix.squared_error(A, B)
        return _Seen(basis, energy, gram @ basis, error, matrix.residual_is_entrywise, none, none)
    n, ell = basis.shape
    drawn = torch.randn(n, max(0, min(PROBES, n - ell)), generator=generator(seed, 0x20), dtype=torch.float64)
    probes = orthonormalize(drawn - basis @ (basis.T @ drawn), basis)
    image, cross = matrix.apply_gram_across(torch.cat([basis, probes], 1), A)
    rows = basis.T @ B.double().T  # B in the basis, (ℓ, r)
    size = float((gram_of(A, matrix) * (B.double() @ B.double().T)).sum())
    error = max(0.0, energy - 2 * float((rows * cross[:ell]).sum()) + size)
    # What is left of X after a good fit would drown in the rounding of this difference.
    entrywise = matrix.residual_is_entrywise and error <= 1e-3 * energy
    if entrywise:
        error = matrix.squared_error(A, B)
    return _Seen(basis, energy, image[:, :ell], error, entrywise, probes, image[:, ell:])


def measure_objective(matrix: Matrix, A: Tensor, B: Tensor, seen: _Seen, *, ridge: float) -> Measured:
    """f with its rounding: each entry of X − AB is off by at most (r+2)u(|X| + |A||B|), and sums by γ_k."""
    size_a = math.sqrt(float(gram_of(A, matrix).trace()))
    size_b = float(torch.linalg.matrix_norm(B.double()))
    reach = math.sqrt(seen.energy) + size_a * size_b
    value = seen.error + ridge * (size_a**2 + size_b**2)
    if seen.entrywise:
        entry = (A.shape[1] + 4) * UNIT * reach
        doubt = 2 * math.sqrt(seen.error) * entry + entry**2
    else:
        outside = B.double().T - seen.basis @ (seen.basis.T @ B.double().T)  # rounding of the basis, measured
        doubt = (matrix.rounding_terms + 4 * matrix.shape[1] + 8) * UNIT * reach**2
        doubt += 2 * math.sqrt(seen.energy) * size_a * float(torch.linalg.matrix_norm(outside))
    doubt += _summation(matrix) * value
    return Measured(value, max(0.0, value - doubt), value + doubt)


def _ceilings(matrix: Matrix, seen: _Seen, gram: Tensor | None, *, assurance: Assurance) -> Iterator[Ceiling]:
    """Ceilings from cheap to dear; the caller stops at the first that is low enough."""
    n, ell = seen.basis.shape
    terms = matrix.rounding_terms
    if ell >= n:
        yield Ceiling(0.0, "deterministic")
        return
    yield frobenius_ceiling(seen.basis, seen.gram_v, energy=seen.energy, terms=terms)
    if gram is None and (n <= CHEAP_GRAM or (assurance == "strict" and n <= GRAM_LIMIT)):
        gram = matrix.gram()
    if gram is not None:
        yield gram_ceiling(seen.basis, gram, energy=seen.energy, terms=terms)
    elif assurance == "auto":
        yield from random_ceilings(
            matrix, seen.basis, seen.probes, seen.image, energy=seen.energy, failure_probability=1e-9, steps=8
        )


def _summation(matrix: Matrix) -> float:
    """Relative error of a sum of squares over blocks."""
    return (BLOCK_BYTES // 8 + matrix.shape[0] // block_rows(matrix.shape[1]) + 4) * UNIT


def _with_summation_error(bounds: SpectrumBounds, energy: float, matrix: Matrix) -> SpectrumBounds:
    """‖X‖² enters the optimum as well; its rounding is moved into the upper bound of σ₁."""
    high = bounds.high.clone()
    high[0] += energy * _summation(matrix)
    return replace(bounds, high=high)
