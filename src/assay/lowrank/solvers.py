"""The methods behind :func:`~assay.lowrank.factorize.factorize`, each ``(matrix, task) -> Found``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.errors import OptionError
from assay.lowrank.alternating import Iterated, alternating_least_squares, gradient_descent
from assay.lowrank.factors import factors_from_basis, split
from assay.lowrank.krylov import RitzSpace, block_krylov, default_block
from assay.lowrank.matrix import Matrix, Sparse
from assay.lowrank.ranks import RankRule
from assay.runtime import generator

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
    from assay.lowrank.matrix import from_torch_sparse

    sparse = from_torch_sparse(torch.sparse_coo_tensor(index, torch.ones(40_000), (4096, 4096)))
    wide = torch.randn(4096, 16, generator=draw)
    share = seconds / 4
    return Rates(
        product=_median_seconds(lambda: square @ square, share) / 512**3,
        thin=_median_seconds(lambda: tall.T @ (tall @ thin), share) / (2 * 4096 * 512 * 16),
        sparse=_median_seconds(lambda: sparse.apply_gram(wide), share) / (2 * 40_000 * 16),
        eigen=_median_seconds(lambda: torch.linalg.eigh(symmetric), share) / 512**3,
    )


def _median_seconds(job: object, seconds: float) -> float:
    assert callable(job)
    job()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 100):
        started = time.perf_counter()
        job()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


@dataclass(frozen=True)
class Task:
    """What to solve: the rule for the rank, ‖X‖²_F, the ridge λ, and how far to iterate.

    ``certify`` tells that a certificate will be asked for, which a Gram matrix in float64 serves as well.
    """

    rule: RankRule
    energy: float
    ridge: float
    accuracy: float
    steps: int
    seed: int
    certify: bool = True


@dataclass(frozen=True, eq=False)
class Found:
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


def solve_exactly(matrix: Matrix, task: Task) -> Found:
    """Dense SVD in float64."""
    m, n = matrix.shape
    if not matrix.in_memory and m * n > EXACT_LIMIT**2:
        raise OptionError("method", expected="gram or krylov for a matrix that is not in memory", got="'exact'")
    dense = torch.cat([block.double() for block in matrix.blocks()])
    left, sigma, right = torch.linalg.svd(dense, full_matrices=False)
    rank = _picked(task, sigma.square(), matrix)
    space = RitzSpace(right.T, sigma.square(), rank, 1, True, complete=len(sigma) == n)
    return _spectral(matrix, task, space, left[:, :rank], sigma[:rank], right.T[:, :rank], spectrum=sigma)


def solve_by_gram(matrix: Matrix, task: Task) -> Found:
    """Eigenvectors of XᵀX, then one refinement: the SVD of XV restores what squaring lost."""
    n = matrix.shape[1]
    if n > GRAM_LIMIT:
        raise OptionError("method", expected=f"at most {GRAM_LIMIT} columns for 'gram'", got=n)
    exact = matrix.dtype == torch.float64 or task.accuracy < 1e-8 or (task.certify and n <= CHEAP_GRAM)
    gram = matrix.gram(torch.float64 if exact else torch.float32)
    squares, vectors = torch.linalg.eigh(gram)
    squares, vectors = squares.flip(0).clamp_min(0), vectors.flip(1)
    rank = _picked(task, squares[: min(matrix.shape)], matrix)
    left, sigma, right = factors_from_basis(matrix, vectors[:, :rank])
    space = RitzSpace(vectors, squares, rank, 2, True, complete=True)
    spectrum = squares[: min(matrix.shape)].sqrt()
    spectrum[:rank] = sigma
    found = _spectral(matrix, task, space, left, sigma, right, spectrum=spectrum)
    return Found(**{**vars(found), "gram": gram if exact else None})


def solve_by_krylov(matrix: Matrix, task: Task) -> Found:
    """Randomised block Krylov iteration."""
    space = block_krylov(matrix, task.rule, energy=task.energy, accuracy=task.accuracy, seed=task.seed)
    left, sigma, right = factors_from_basis(matrix, space.basis[:, : space.rank])
    spectrum = space.squares[: min(len(space.squares), 2 * space.rank, *matrix.shape)].sqrt()
    spectrum[: space.rank] = sigma
    return _spectral(matrix, task, space, left, sigma, right, spectrum=spectrum)


def solve_by_alternating(matrix: Matrix, task: Task) -> Found:
    """Alternating least squares."""
    return _iterated(matrix, task, alternating_least_squares)


def solve_by_descent(matrix: Matrix, task: Task) -> Found:
    """Gradient descent on both factors."""
    return _iterated(matrix, task, gradient_descent)


Solver = Callable[[Matrix, Task], Found]
SOLVERS: dict[str, Solver] = {
    "exact": solve_exactly,
    "gram": solve_by_gram,
    "krylov": solve_by_krylov,
    "als": solve_by_alternating,
    "descent": solve_by_descent,
}


def for_whole_spectrum(costs: dict[str, float]) -> str:
    """The cheapest method that finds every singular value."""
    able = [name for name in costs if name != "krylov"]
    if not able:
        raise OptionError(
            "noise", expected=f"a value: more than {GRAM_LIMIT} columns have no affordable median", got="none"
        )
    return able[0]


def _picked(task: Task, squares: Tensor, matrix: Matrix) -> int:
    rank = task.rule.pick(squares, task.energy, matrix.shape)
    return len(squares) if rank is None else min(rank, len(squares))


def _spectral(
    matrix: Matrix, task: Task, space: RitzSpace, left: Tensor, sigma: Tensor, right: Tensor, *, spectrum: Tensor
) -> Found:
    a, b = split(left, sigma, right, ridge=task.ridge, dtype=matrix.dtype)
    return Found(a, b, (sigma - task.ridge).clamp_min(0), space, spectrum, space.passes + 1)


def _iterated(matrix: Matrix, task: Task, method: Callable[..., Iterated]) -> Found:
    if task.rule.rank is None:
        raise OptionError("rank", expected="a number, for als and descent", got=str(task.rule))
    run = method(
        matrix, task.rule.rank, ridge=task.ridge, energy=task.energy, accuracy=task.accuracy, steps=task.steps,
        seed=task.seed,
    )  # fmt: skip
    left, r_a = torch.linalg.qr(run.A)
    right, r_b = torch.linalg.qr(run.B.T)
    turn, sigma, back = torch.linalg.svd(r_a @ r_b.T)
    a, b = split(left @ turn, sigma, right @ back.T, ridge=0.0, dtype=matrix.dtype)
    return Found(a, b, sigma, None, sigma, 2 * len(run.history), history=run.history)
