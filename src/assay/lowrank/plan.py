"""Which method is cheapest for a shape, by a cost model with measured rates."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from assay.lowrank.krylov import default_block
from assay.lowrank.matrix import Matrix
from assay.lowrank.sparse import Sparse
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
    from assay.lowrank.sparse import from_torch_sparse

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
