"""Certify a factorisation: ours, or anybody's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
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
    random_ceiling,
    write_certificate,
)
from assay.lowrank.krylov import RitzSpace, block_krylov
from assay.lowrank.matrix import BLOCK_BYTES, Matrix, Residuals, Scaled, block_rows
from assay.lowrank.plan import GRAM_LIMIT
from assay.lowrank.ranks import RankRule
from assay.lowrank.sources import as_matrix, measure_energy
from assay.records.factorization import Certificate

Assurance = Literal["auto", "strict", "none"]
ASSURANCES = ("auto", "strict", "none")
CHEAP_GRAM = 600  # columns up to which a float64 Gram matrix costs no more than a few readings of X


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
    rank = A.shape[1]
    if space is None:
        rule = RankRule(rank=rank)
        space = block_krylov(matrix, rule, energy=energy, accuracy=TOLERANCE / 10, seed=seed + 1)
    n = matrix.shape[1]
    basis = torch.linalg.qr(space.basis[:, : min(n, 2 * rank + 8, space.basis.shape[1])]).Q
    seen = matrix.measure_residuals(A, B, basis)
    measured = measure_objective(matrix, A, B, seen, ridge=ridge)
    count = min(rank + 1, *matrix.shape)
    terms = matrix.rounding_terms
    best: Certificate | None = None
    for ceiling in _ceilings(matrix, basis, seen, gram, assurance=assurance, seed=seed):
        bounds = bound_spectrum(basis, seen.gram_v, ceiling, energy=seen.energy, terms=terms, count=count)
        certificate = write_certificate(
            _with_summation_error(bounds, seen.energy, matrix), measured, rank=rank, ridge=ridge, energy=seen.energy
        )
        if best is None or certificate.gap_high < best.gap_high:
            best = certificate
        if certificate.certified and certificate.uniqueness != "undecided":
            break
    assert best is not None
    return best


def measure_objective(matrix: Matrix, A: Tensor, B: Tensor, seen: Residuals, *, ridge: float) -> Measured:
    """f with its rounding: each entry of X − AB is off by at most (r+2)u(|X| + |A||B|), and sums by γ_k."""
    size_a = math.sqrt(float(matrix.sum_over_processes(A.double().square().sum())))
    size_b = float(torch.linalg.matrix_norm(B.double()))
    reach = math.sqrt(seen.energy) + size_a * size_b
    value = seen.error + ridge * (size_a**2 + size_b**2)
    if matrix.residual_is_entrywise:
        entry = (A.shape[1] + 4) * UNIT * reach
        doubt = 2 * math.sqrt(seen.error) * entry + entry**2
    else:
        doubt = (matrix.rounding_terms + matrix.shape[1] + 8) * UNIT * reach**2
    doubt += _summation(matrix) * value
    return Measured(value, max(0.0, value - doubt), value + doubt)


def _ceilings(
    matrix: Matrix, basis: Tensor, seen: Residuals, gram: Tensor | None, *, assurance: Assurance, seed: int
) -> Iterator[Ceiling]:
    """Ceilings from cheap to dear; the caller stops at the first that is low enough."""
    n = matrix.shape[1]
    terms = matrix.rounding_terms
    if basis.shape[1] >= n:
        yield Ceiling(0.0, "deterministic")
        return
    yield frobenius_ceiling(basis, seen.gram_v, energy=seen.energy, terms=terms)
    if gram is None and (n <= CHEAP_GRAM or (assurance == "strict" and n <= GRAM_LIMIT)):
        gram = matrix.gram()
    if gram is not None:
        yield gram_ceiling(basis, gram, energy=seen.energy, terms=terms)
    elif assurance == "auto":
        yield random_ceiling(matrix, basis, energy=seen.energy, failure_probability=1e-9, steps=7, probes=16, seed=seed)


def _summation(matrix: Matrix) -> float:
    """Relative error of a sum of squares over blocks."""
    return (BLOCK_BYTES // 8 + matrix.shape[0] // block_rows(matrix.shape[1]) + 4) * UNIT


def _with_summation_error(bounds: SpectrumBounds, energy: float, matrix: Matrix) -> SpectrumBounds:
    """‖X‖² enters the optimum as well; its rounding is moved into the upper bound of σ₁."""
    high = bounds.high.clone()
    high[0] += energy * _summation(matrix)
    return replace(bounds, high=high)
