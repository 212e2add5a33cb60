"""The methods of factorisation, and a cost model to choose between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from assay.errors import OptionError
from assay.lowrank.factors import factors_from_basis, split
from assay.lowrank.gauge import product_svd
from assay.lowrank.krylov import RESOLUTION, RitzSpace, block_krylov, default_block
from assay.lowrank.matrix import Dense, Matrix, Sparse, from_torch_sparse
from assay.lowrank.ranks import RankRule
from assay.runtime import generator

Iterated = tuple[Tensor, Tensor, list[float]]  # A (m, r), B (r, n) in float64, the objective after each step


def alternating_least_squares(
    matrix: Matrix, rank: int, *, ridge: float, energy: float, accuracy: float, steps: int, seed: int
) -> Iterated:
    """A ← XBᵀ(BBᵀ + λI)⁻¹, B ← (AᵀA + λI)⁻¹AᵀX in turn, each the exact minimiser for the other.

    Without a ridge a sweep is one step of subspace iteration: the row space turns towards the top right singular
    vectors at the rate (σ_{r+1}/σ_r)². Stops when the decrease that further sweeps can bring, by the geometric rate of
    the last two, is below accuracy·‖X‖².
    """
    b = torch.randn(rank, matrix.shape[1], generator=generator(seed, 0x40), dtype=torch.float64)
    history: list[float] = []
    for _ in range(steps):
        a = _solve(b @ b.T, matrix.times(b.T).T, ridge).T
        inner = a.T @ a
        target = matrix.transposed_times(a).T  # AᵀX
        b = _solve(inner, target, ridge)
        # ‖X − AB‖² = ‖X‖² − 2⟨AᵀX, B⟩ + ⟨AᵀA, BBᵀ⟩
        fit = energy - 2 * float((target * b).sum()) + float((inner * (b @ b.T)).sum())
        history.append(fit + ridge * (float(inner.trace()) + float(b.square().sum())))
        if len(history) > 2 and _remaining_decrease(history) <= accuracy * energy:
            break
    return a, b, history


def gradient_descent(
    matrix: Matrix, rank: int, *, ridge: float, energy: float, accuracy: float, steps: int, seed: int
) -> Iterated:
    """(A, B) ← (A, B) − η∇f from a small random start, η = 0.9/(2σ₁ + λ): below the safe step 1/(2σ₁ + λ).

    ∇_A f = 2(AB − X)Bᵀ + 2λA and ∇_B f = 2Aᵀ(AB − X) + 2λB. The sharpness at the balanced optimum is 4σ₁ (+2λ), so
    steps below 2/(4σ₁ + 2λ) settle there; the small start keeps AᵀA ≈ BBᵀ on the way. Stops when the squared gradient
    falls below accuracy·σ₁·f-scale: a stationary point, which from a random start is a minimum with probability 1.
    """
    m, n = matrix.shape
    sigma = _largest_singular_value(matrix, seed)
    step = 0.9 / (2 * sigma + ridge) if sigma else 0.0
    size = 1e-3 * sigma**0.5 / max(m, n) ** 0.5
    a = torch.randn(m, rank, generator=generator(seed, 0x41), dtype=torch.float64) * size
    b = torch.randn(rank, n, generator=generator(seed, 0x42), dtype=torch.float64) * size
    history: list[float] = []
    for _ in range(steps):
        xb, ax = matrix.times(b.T), matrix.transposed_times(a).T
        inner, outer = a.T @ a, b @ b.T
        fit = energy - 2 * float((ax * b).sum()) + float((inner * outer).sum())
        history.append(fit + ridge * (float(inner.trace()) + float(outer.trace())))
        slope_a = 2 * (a @ outer - xb + ridge * a)
        slope_b = 2 * (inner @ b - ax + ridge * b)
        slope = float(slope_a.square().sum() + slope_b.square().sum())
        if len(history) > 20 and slope <= accuracy * accuracy * sigma * energy**0.5 * sigma:
            break
        a = a - step * slope_a
        b = b - step * slope_b
    return a, b, history


def _remaining_decrease(history: list[float]) -> float:
    """δ + δq + δq² + …, from the last decrease δ and its ratio q to the one before."""
    before, last = history[-3] - history[-2], history[-2] - history[-1]
    return last * last / max(before - last, 1e-3 * before, 1e-300) if last > 0 else 0.0


def _solve(inner: Tensor, target: Tensor, ridge: float) -> Tensor:
    """(inner + λI)⁻¹ target; the least-norm solution where inner is singular."""
    eye = torch.eye(len(inner), dtype=inner.dtype)
    factor, info = torch.linalg.cholesky_ex(inner + ridge * eye)
    largest, smallest = float(factor.diagonal().max()), float(factor.diagonal().min())
    if int(info) == 0 and smallest > 1e-7 * largest:
        return torch.cholesky_solve(target, factor)
    inverse: Tensor = torch.linalg.pinv(inner + ridge * eye, hermitian=True)
    return inverse @ target


def _largest_singular_value(matrix: Matrix, seed: int) -> float:
    """σ₁ by power iteration on a block of four, increased by 2 %: a step must not be too long."""
    block = torch.randn(matrix.shape[1], 4, generator=generator(seed, 0x43), dtype=torch.float64)
    value = 0.0
    for _ in range(20):
        block = torch.linalg.qr(block).Q
        image = matrix.apply_gram(block)
        value = float(torch.linalg.eigvalsh(block.T @ image)[-1].clamp_min(0).sqrt())
        block = image
    return 1.02 * value


GRAM_LIMIT = 12_000  # columns: a float64 Gram matrix of 1.2 GB
CHEAP_GRAM = 600  # columns up to which a float64 Gram matrix costs no more than a few readings of X
EXACT_LIMIT = 4_000  # the smaller side of an SVD


@dataclass(frozen=True)
class Rates:
    """Seconds for one multiply–add of a square, a thin and a sparse product; and for n = 1 of an n³ eigh."""

    product: float
    thin: float
    sparse: float
    eigen: float


REFERENCE = Rates(product=3e-11, thin=1e-10, sparse=1.2e-9, eigen=1.2e-9)
"""Two cores of a 2023 server. Only the ratios matter for the choice, and fixed ones keep it reproducible."""


def predict_seconds(matrix: Matrix, rank: int, *, rates: Rates | None = None) -> dict[str, float]:
    """Expected seconds of each direct method that can treat the matrix at all, cheapest first.

    exact: about 12·m·n·min multiply–adds.  gram: mn² and one eigendecomposition.  krylov: some 12 readings with a block
    of b columns, and orthogonalising a basis of 12b columns of length n.
    """
    rates = rates or REFERENCE
    m, n = matrix.shape
    small, width = min(m, n), default_block(rank)
    sparse = isinstance(matrix, Sparse)
    rate = rates.sparse if sparse else rates.thin
    passes = 12 + rank // (2 * width)
    basis = min(n, passes * width)
    costs = {"krylov": passes * (2 * width * matrix.work * rate) + 2 * n * basis**2 * rates.thin + 2e-3 * passes}
    costs["krylov"] += passes * basis**3 * rates.eigen / 3
    if n <= GRAM_LIMIT:
        costs["gram"] = matrix.work * n * (rates.sparse if sparse else rates.product) + n**3 * rates.eigen
    if matrix.in_memory and small <= EXACT_LIMIT and not sparse and m * n <= 64_000_000:
        costs["exact"] = 12 * m * n * small * rates.product + 20 * small**2 * rates.thin + 1e-3
    return dict(sorted(costs.items(), key=lambda item: item[1]))


def measure_rates(*, seconds: float = 0.2) -> Rates:
    """The rates of this machine, each from the median of a few repetitions of a small job."""
    draw = generator(0x60)
    square = torch.randn(512, 512, generator=draw)
    tall = torch.randn(4096, 512, generator=draw)
    thin = torch.randn(512, 16, generator=draw)
    symmetric = (square @ square.T).double()
    index = torch.randint(0, 4096, (2, 40_000), generator=draw)
    sparse = from_torch_sparse(torch.sparse_coo_tensor(index, torch.ones(40_000), (4096, 4096)))
    wide = torch.randn(4096, 16, generator=draw)
    share = seconds / 4
    return Rates(
        product=_median_seconds(lambda: square @ square, share) / 512**3,
        thin=_median_seconds(lambda: tall.T @ (tall @ thin), share) / (2 * 4096 * 512 * 16),
        sparse=_median_seconds(lambda: sparse.apply_gram(wide), share) / (2 * 40_000 * 16),
        eigen=_median_seconds(lambda: torch.linalg.eigh(symmetric), share) / 512**3,
    )


def _median_seconds(job: Callable[[], object], seconds: float) -> float:
    job()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 100):
        started = time.perf_counter()
        job()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


@dataclass(frozen=True)
class FactorizationTask:
    """What to solve: the rule for the rank, ‖X‖²_F, the ridge λ, and how far to iterate.

    ``certify``: a certificate follows, which can reuse a Gram matrix in float64.
    """

    rule: RankRule
    energy: float
    ridge: float
    accuracy: float
    steps: int
    seed: int
    certify: bool = True


@dataclass(frozen=True, eq=False)
class Solution:
    """Factors, the singular values of AB, and what the certificate can build on.

    ``space`` holds the leading right singular vectors and some more; None where a method has no such space.
    ``gram`` is XᵀX in float64 where it was formed so. ``spectrum`` are singular values of X.
    """

    A: Tensor
    B: Tensor
    sigma: Tensor
    space: RitzSpace | None
    spectrum: Tensor
    passes: int
    gram: Tensor | None = None
    history: tuple[float, ...] = ()


def fits_exactly(matrix: Matrix) -> bool:
    """Whether an SVD of all of X takes seconds and little memory."""
    m, n = matrix.shape
    return m * n <= EXACT_LIMIT**2 and matrix.local_rows == m


def solve_exactly(matrix: Matrix, task: FactorizationTask) -> Solution:
    m, n = matrix.shape
    if not fits_exactly(matrix) and not isinstance(matrix, Dense):
        raise OptionError("method", expected="gram or krylov for a matrix that is not dense in memory", got="'exact'")
    dense = matrix.dense()
    left, sigma, right = torch.linalg.svd(dense, full_matrices=False)
    rank = _choose_rank(task, sigma.square(), matrix, resolution=(max(m, n) * 2.0**-52) ** 2)
    space = RitzSpace(right.T, sigma.square(), rank, 1, True, len(sigma), complete=len(sigma) == n)
    return _spectral(matrix, task, space, (left[:, :rank], sigma[:rank], right.T[:, :rank]), spectrum=sigma)


def solve_by_gram(matrix: Matrix, task: FactorizationTask) -> Solution:
    """Eigenvectors of XᵀX, then one refinement: the SVD of XV restores the digits lost by squaring."""
    n = matrix.shape[1]
    if n > GRAM_LIMIT:
        raise OptionError("method", expected=f"at most {GRAM_LIMIT} columns for 'gram'", got=n)
    exact = matrix.dtype == torch.float64 or task.accuracy < 1e-8 or (task.certify and n <= CHEAP_GRAM)
    exact = exact or task.rule.rank is None
    gram = matrix.gram(torch.float64 if exact else torch.float32)
    squares, vectors = torch.linalg.eigh(gram)
    squares, vectors = squares.flip(0).clamp_min(0), vectors.flip(1)
    resolution = RESOLUTION[torch.float64 if exact else torch.float32]
    rank = _choose_rank(task, squares, matrix, resolution=resolution)
    settled = int((squares > resolution * squares[0]).sum())
    solution = _lift(matrix, task, RitzSpace(vectors, squares, rank, 2, True, settled, complete=True), count=n)
    return replace(solution, gram=gram if exact else None)


def solve_by_krylov(matrix: Matrix, task: FactorizationTask) -> Solution:
    space = block_krylov(matrix, task.rule, energy=task.energy, accuracy=task.accuracy, seed=task.seed)
    return _lift(matrix, task, space, count=2 * space.rank)


def _choose_rank(task: FactorizationTask, squares: Tensor, matrix: Matrix, *, resolution: float) -> int:
    rank = task.rule.pick(squares, task.energy, matrix.shape, complete=True, resolution=resolution)
    assert rank is not None
    return rank


def _lift(matrix: Matrix, task: FactorizationTask, space: RitzSpace, *, count: int) -> Solution:
    """The best factors within a space of rows; the spectrum holds at most ``count`` singular values."""
    svd = factors_from_basis(matrix, space.basis[:, : space.rank])
    further = space.squares[space.rank : min(count, space.settled, *matrix.shape)].sqrt()
    spectrum = torch.cat([svd[1], further])
    return _spectral(matrix, task, space, svd, spectrum=spectrum)


def _spectral(
    matrix: Matrix, task: FactorizationTask, space: RitzSpace, svd: tuple[Tensor, Tensor, Tensor], *, spectrum: Tensor
) -> Solution:
    left, sigma, right = svd
    a, b = split(left, sigma, right, ridge=task.ridge, dtype=matrix.dtype)
    return Solution(a, b, (sigma - task.ridge).clamp_min(0), space, spectrum, space.passes + 1)


def _solve_by_steps(method: Callable[..., Iterated], matrix: Matrix, task: FactorizationTask) -> Solution:
    if task.rule.rank is None:
        raise OptionError("rank", expected="a number, for als and descent", got=str(task.rule))
    a, b, history = method(
        matrix, task.rule.rank, ridge=task.ridge, energy=task.energy, accuracy=task.accuracy, steps=task.steps,
        seed=task.seed,
    )  # fmt: skip
    left, sigma, right = product_svd(a, b)
    a, b = split(left, sigma, right, ridge=0.0, dtype=matrix.dtype)
    return Solution(a, b, sigma, None, sigma, 2 * len(history), history=tuple(history))


SOLVERS: dict[str, Callable[[Matrix, FactorizationTask], Solution]] = {
    "exact": solve_exactly,
    "gram": solve_by_gram,
    "krylov": solve_by_krylov,
    "als": partial(_solve_by_steps, alternating_least_squares),
    "descent": partial(_solve_by_steps, gradient_descent),
}
