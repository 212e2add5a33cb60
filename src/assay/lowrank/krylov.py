"""The leading right singular vectors by randomised block Krylov iteration, one reading of X for each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.lowrank.matrix import Matrix
from assay.lowrank.ranks import RankRule
from assay.runtime import generator


@dataclass(frozen=True, eq=False)
class RitzSpace:
    """``basis`` float64 (n, k) with orthonormal columns, ``squares`` (k,) the Ritz values of XᵀX, falling.

    The leading ``rank`` of them are wanted; ``converged``: their estimated lack of energy is within the accuracy (the
    estimate stops the iteration; the certificate does not rely on it). ``complete``: k = n, the whole spectrum.
    """

    basis: Tensor
    squares: Tensor
    rank: int
    passes: int
    converged: bool
    complete: bool = False


def block_krylov(
    matrix: Matrix,
    rule: RankRule,
    *,
    energy: float,
    accuracy: float,
    seed: int,
    block: int | None = None,
    max_passes: int = 200,
    max_basis: int = 1200,
) -> RitzSpace:
    """Rayleigh–Ritz on span{Ω, GΩ, G²Ω, …}, G = XᵀX, Ω Gaussian (n, b), until the top r hold all but ``accuracy``.

    Block Lanczos with full reorthogonalisation, restarted with its best Ritz vectors when the basis grows beyond
    ``max_basis`` columns. Products in the matrix's dtype, everything else in float64. The stopping estimate is
    Σ_i min(‖e_i‖, ‖e_i‖²/(θ_i − θ_c)) ≤ accuracy·Σ_i θ_i, e_i = G v_i − θ_i v_i, θ_c in the middle of the surplus.

    Reference: Musco & Musco, *Randomized block Krylov methods for stronger and faster approximate SVD*, NeurIPS 2015.
    """
    n = matrix.shape[1]
    width = min(n, block or default_block(rule.rank or 16))
    fresh = torch.linalg.qr(torch.randn(n, width, generator=generator(seed, 0x10), dtype=torch.float64)).Q
    basis, images, small = fresh.new_empty(n, 0), fresh.new_empty(n, 0), fresh.new_empty(0, 0)
    passes = 0
    while True:
        image = matrix.apply_gram(fresh.to(matrix.dtype))
        passes += 1
        cross, corner = basis.T @ image, fresh.T @ image  # the new block's columns of QᵀGQ
        small = torch.cat([torch.cat([small, cross], 1), torch.cat([cross.T, (corner + corner.T) / 2], 1)])
        basis, images = torch.cat([basis, fresh], 1), torch.cat([images, image], 1)
        squares, vectors = (each.flip(-1) for each in torch.linalg.eigh(small))  # falling
        rank = rule.pick(squares.clamp_min(0), energy, matrix.shape)
        complete = basis.shape[1] >= n
        known = min(rank or len(squares), len(squares))
        done = rank is not None and len(squares) > rank and _converged(basis, images, squares, vectors, rank, accuracy)
        if done or complete or passes >= max_passes:
            return RitzSpace(basis @ vectors, squares.clamp_min(0), known, passes, done or complete, complete)
        fresh = _next_block(basis, image, width)
        if fresh.shape[1] == 0:  # an invariant subspace: X has no more directions that the start can see
            return RitzSpace(basis @ vectors, squares.clamp_min(0), known, passes, True, complete)
        if basis.shape[1] + width > max(max_basis, 3 * known + width):
            keep = vectors[:, : known + width]
            basis, images, small = basis @ keep, images @ keep, torch.diag(squares[: known + width])
            fresh = _next_block(basis, fresh, width)


def default_block(rank: int) -> int:
    """Columns of a block: wide enough to use the cache, narrow enough to leave many Krylov steps to a basis."""
    return max(8, min(32, rank))


def orthonormalize(columns: Tensor, against: Tensor | None = None) -> Tensor:
    """An orthonormal basis of the columns, orthogonal to ``against``; directions lost to rounding are dropped."""
    scale = torch.linalg.vector_norm(columns, dim=0).max()
    if float(scale) == 0:
        return columns[:, :0]
    for _ in range(2):
        if against is not None:
            columns = columns - against @ (against.T @ columns)
        q, r = torch.linalg.qr(columns)
        independent = r.diagonal().abs() > 1e-12 * scale
        columns, scale = q[:, independent], torch.ones(())
    return columns


def _next_block(basis: Tensor, image: Tensor, width: int) -> Tensor:
    room = basis.shape[0] - basis.shape[1]
    return orthonormalize(image, basis)[:, : min(width, room)]


def _converged(basis: Tensor, images: Tensor, squares: Tensor, vectors: Tensor, rank: int, accuracy: float) -> bool:
    top = vectors[:, :rank]
    residual = torch.linalg.vector_norm(images @ top - (basis @ top) * squares[:rank], dim=0)
    beyond = squares[(rank + len(squares)) // 2]  # what lies outside the basis is well below its middle by now
    room = (squares[:rank] - beyond).clamp_min(1e-300)
    lack = torch.minimum(residual, residual.square() / room)
    total = float(squares[:rank].sum())
    return math.isfinite(total) and float(lack.sum()) <= accuracy * total
