"""The leading right singular vectors by randomised block Krylov iteration, one reading of X for each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.lowrank.matrix import Matrix
from assay.lowrank.ranks import RankRule
from assay.runtime import generator

RESOLUTION = {torch.float32: 2e-7, torch.float64: 1e-13}  # of ‖X‖²: what sums of computed σ² may be off by
LARGEST_BASIS = 250_000_000  # numbers in a basis whose rank is not known beforehand: 2 GB


@dataclass(frozen=True, eq=False)
class RitzSpace:
    """``basis`` float64 (n, k) with orthonormal columns, ``squares`` (k,) the Ritz values of XᵀX, falling.

    The leading ``rank`` of them are wanted; ``converged``: their estimated lack of energy is within the accuracy (the
    estimate stops the iteration; the certificate does not rely on it). ``complete``: k = n, the whole spectrum.
    ``settled``: how many of the leading Ritz values are singular values of X to three digits or more.
    """

    basis: Tensor
    squares: Tensor
    rank: int
    passes: int
    converged: bool
    settled: int
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
    ``max_basis`` columns. Products in the matrix's dtype if the rank is given, all else in float64. The stopping
    estimate is Σ_i min(‖e_i‖, ‖e_i‖²/(θ_i − θ_c)) ≤ accuracy·Σ_i θ_i, e_i = G v_i − θ_i v_i, θ_c in the middle of the
    surplus.

    Of a repeated singular value the space of b random columns holds b copies only, and it may be invariant before it
    is wide enough: random columns, orthogonal to the basis, then take the place of those that the products do not
    bring. Nor is an estimate trusted while a value above the last wanted one has as many copies as columns were drawn.

    Reference: Musco & Musco, *Randomized block Krylov methods for stronger and faster approximate SVD*, NeurIPS 2015.
    """
    n = matrix.shape[1]
    width = min(n, block or default_block(rule.rank or 16))
    draw = generator(seed, 0x10)
    fresh = torch.linalg.qr(torch.randn(n, width, generator=draw, dtype=torch.float64)).Q
    drawn = [(0, width)]  # after which pass, and how many random columns
    basis, images, small = fresh.new_empty(n, 0), fresh.new_empty(n, 0), fresh.new_empty(0, 0)
    dtype = torch.float64 if rule.rank is None else matrix.dtype  # a rank that depends on sums needs their digits
    resolution = RESOLUTION[dtype]
    passes = 0
    while True:
        image = matrix.apply_gram(fresh.to(dtype))
        passes += 1
        cross, corner = basis.T @ image, fresh.T @ image  # the new block's columns of QᵀGQ
        small = torch.cat([torch.cat([small, cross], 1), torch.cat([cross.T, (corner + corner.T) / 2], 1)])
        basis, images = torch.cat([basis, fresh], 1), torch.cat([images, image], 1)
        columns, captured = basis.shape[1], float(small.trace())
        exhausted = energy - captured <= resolution * energy  # X has nothing outside the basis
        complete = columns >= n
        full = rule.rank is None and n * (columns + width) > LARGEST_BASIS
        last = complete or full or passes >= max_passes
        if last or rule.within_reach(columns, captured, energy, resolution):
            squares, vectors = falling_eigh(small)
            squares = squares.clamp_min(0)
            rank = rule.pick(squares, energy, matrix.shape, complete=complete or exhausted, resolution=resolution)
            known = min(rank or columns, columns, *matrix.shape)
            done = rank is not None and columns > rank
            done = done and (exhausted or _converged(basis, images, squares, vectors, known, accuracy))
            seen = sum(count for when, count in drawn if passes >= 2 * when)  # the others have not had their turn
            if done and not exhausted and _may_miss_copies(squares[:known], seen, accuracy):
                done = False
                if all(passes >= 2 * when for when, _ in drawn):
                    image = image[:, :0]
            if done or last:
                settled = int((squares > resolution * squares[0]).sum())
                if not (complete or exhausted):
                    lack = _lack(basis, images, squares, vectors, min(columns, 2 * known + 8))
                    settled = min(settled, _count_settled(squares, lack, known, seen, accuracy))
                settled = max(known, settled)
                return RitzSpace(basis @ vectors, squares, known, passes, done or complete, settled, complete)
            if columns + width > max(max_basis, 3 * known + width):
                image = orthonormalize(image, basis)
                keep = vectors[:, : known + width]
                basis, images, small = basis @ keep, images @ keep, torch.diag(squares[: known + width])
        else:
            width = max(width, columns // 2)  # the rank is not known yet, and may be large
        fresh, missing = _next_block(basis, image, width, draw)
        if missing:
            drawn.append((passes, missing))


def default_block(rank: int) -> int:
    """Columns of a block: wide enough to use the cache, narrow enough to leave many Krylov steps to a basis."""
    return max(8, min(32, rank))


def orthonormalize(columns: Tensor, against: Tensor | None = None) -> Tensor:
    """An orthonormal basis of the columns, orthogonal to ``against``; directions lost to rounding are dropped."""
    if columns.shape[1] == 0 or not bool(columns.any()):
        return columns[:, :0]
    scale = torch.linalg.vector_norm(columns, dim=0).max()
    for _ in range(2):
        if against is not None:
            columns = columns - against @ (against.T @ columns)
        q, r = torch.linalg.qr(columns)
        independent = r.diagonal().abs() > 1e-12 * scale
        columns, scale = q[:, independent], torch.ones(())
    return columns


def falling_eigh(matrix: Tensor, *, unit: float = 2.0**-52) -> tuple[Tensor, Tensor]:
    """Eigenvalues, falling, and eigenvectors of a symmetric matrix; at once where it is diagonal to rounding.

    So are the Gram matrices of orthogonal ones, the identity among them, whose rank for a share of energy is large.
    """
    values = matrix.diagonal()
    root = values.clamp_min(0).sqrt()
    rest = matrix.abs()
    rest.diagonal().zero_()
    if len(values) > 200 and bool((rest <= 4 * unit * root[:, None] * root).all()):
        order = values.argsort(descending=True)
        return values[order], torch.eye(len(values), dtype=matrix.dtype)[:, order]
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0), vectors.flip(1)


def _next_block(basis: Tensor, image: Tensor, width: int, draw: torch.Generator) -> tuple[Tensor, int]:
    """``width`` new directions as far as there is room, those of ``image`` first; how many of them are random."""
    n, columns = basis.shape
    width = min(width, n - columns)
    block = orthonormalize(image, basis)[:, :width]
    missing = width - block.shape[1]
    if missing:
        random = torch.randn(n, missing, generator=draw, dtype=torch.float64)
        block = torch.cat([block, orthonormalize(random, torch.cat([basis, block], 1))], 1)
    return block, missing


def _may_miss_copies(wanted: Tensor, seen: int, accuracy: float) -> bool:
    """Whether ``seen`` or more of the values, all above the last, are too close together for the estimate to part."""
    if len(wanted) <= seen:
        return False
    least = (1 - 10 * min(math.sqrt(accuracy), 1e-3)) * wanted[: len(wanted) - seen]
    return bool(((wanted[seen - 1 : -1] >= least) & (wanted[-1] < least)).any())


def _converged(basis: Tensor, images: Tensor, squares: Tensor, vectors: Tensor, rank: int, accuracy: float) -> bool:
    total = float(squares[:rank].sum())
    lack = _lack(basis, images, squares, vectors, rank)
    if squares[rank] >= (1 - 1e-5) * squares[rank - 1]:  # a repeated σ_r is bounded no better than by ‖e_i‖
        residual = _residuals(basis, images, squares, vectors, rank)
        lack = torch.where(squares[:rank] <= (1 + 1e-5) * squares[rank], residual, lack)
    return math.isfinite(total) and float(lack.sum()) <= accuracy * total


def _lack(basis: Tensor, images: Tensor, squares: Tensor, vectors: Tensor, count: int) -> Tensor:
    """By how much each of the leading ``count`` Ritz values is estimated to be below its eigenvalue."""
    residual = _residuals(basis, images, squares, vectors, count)
    beyond = squares[
        min((count + len(squares)) // 2, len(squares) - 1)
    ]  # what lies outside the basis is well below its middle by now
    room = (squares[:count] - beyond).clamp_min(1e-300)
    return torch.minimum(residual, residual.square() / room)


def _count_settled(squares: Tensor, lack: Tensor, known: int, seen: int, accuracy: float) -> int:
    close = lack[known:] <= 1e-3 * squares[known : len(lack)]
    settled = known + int(close.cumprod(0).sum())
    while settled > known and _may_miss_copies(squares[:settled], seen, accuracy):
        settled -= 1
    return settled


def _residuals(basis: Tensor, images: Tensor, squares: Tensor, vectors: Tensor, count: int) -> Tensor:
    top = vectors[:, :count]
    lengths: Tensor = torch.linalg.vector_norm(images @ top - (basis @ top) * squares[:count], dim=0)
    return lengths
