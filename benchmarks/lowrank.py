"""Truncated SVD at equal achieved error: ours against scikit-learn, torch, SciPy and fbpca, interleaved in one run.

python benchmarks/lowrank.py --json lowrank.json [--quick] [--case NAME]

Each solver gets the least effort (from a fixed ladder of iterations) at which it keeps all but 1e-6 of the optimal
energy Σ_{i≤r} σ_i²; the optimum comes from the float64 Gram matrix, or from our certificate where that is too large.
A peer that never gets there is timed at its greatest effort, and the row says how far off it stayed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import fbpca
import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds
from sklearn.utils.extmath import randomized_svd

from assay.lowrank.certificate import Assurance
from assay.lowrank.factorization import factorize
from assay.lowrank.matrix import Matrix
from assay.lowrank.sources import as_matrix
from assay.runtime import describe_environment

TARGET = 1e-6
Basis = Callable[[int], np.ndarray]  # effort -> right singular vectors (n, r)


@dataclass(frozen=True)
class Case:
    """A matrix, a rank, and how to make it; ``exact`` where the Gram matrix is affordable."""

    name: str
    rank: int
    make: Callable[[], object]
    exact: bool = True


def dense(m: int, n: int, decay: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> np.ndarray:
    """A float32 matrix with the leading singular values decay(1), decay(2), …, and a little noise."""
    g = torch.Generator().manual_seed(seed)
    k = min(m, n, 300)
    left = torch.linalg.qr(torch.randn(m, k, generator=g)).Q
    right = torch.linalg.qr(torch.randn(n, k, generator=g)).Q
    sigma = torch.from_numpy(decay(np.arange(1, k + 1)).astype(np.float32))
    x = (left * (100 * sigma)) @ right.T
    for rows in torch.split(x, 1 << 16):
        rows += torch.randn(rows.shape, generator=g) * (5 / max(m, n) ** 0.5)
    return x.numpy()


def sparse(m: int, n: int, entries: int, seed: int = 0) -> sp.csr_matrix:
    """Counts with a popularity that falls like 1/√i on both sides, as in text and ratings."""
    r = np.random.default_rng(seed)
    rows = (m * r.random(entries) ** 2).astype(np.int32)
    columns = (n * r.random(entries) ** 2).astype(np.int32)
    return sp.csr_matrix((np.ones(entries, np.float32), (rows, columns)), shape=(m, n))


def slow(i: np.ndarray) -> np.ndarray:
    return i**-0.5


def fast(i: np.ndarray) -> np.ndarray:
    return 0.8**i


FULL = (
    Case("1,000,000 x 100, rank 10, slow decay", 10, lambda: dense(1_000_000, 100, slow)),
    Case("10,000 x 3,000, rank 50, slow decay", 50, lambda: dense(10_000, 3_000, slow)),
    Case("10,000 x 3,000, rank 50, fast decay", 50, lambda: dense(10_000, 3_000, fast)),
    Case("20,000 x 5,000, rank 50, slow decay", 50, lambda: dense(20_000, 5_000, slow), exact=False),
    Case("sparse 10^6 x 10^5, 10^7 entries, rank 10", 10, lambda: sparse(1_000_000, 100_000, 10_000_000), exact=False),
)
QUICK = (
    Case("100,000 x 100, rank 10, slow decay", 10, lambda: dense(100_000, 100, slow)),
    Case("2,000 x 600, rank 20, slow decay", 20, lambda: dense(2_000, 600, slow)),
    Case("sparse 10^5 x 10^4, 10^6 entries, rank 5", 5, lambda: sparse(100_000, 10_000, 1_000_000), exact=False),
)


def peers(x: object, rank: int) -> dict[str, tuple[Basis, tuple[int, ...]]]:
    """Each solver as effort -> right vectors, with its ladder of efforts."""
    found: dict[str, tuple[Basis, tuple[int, ...]]] = {
        "scikit-learn randomized_svd": (
            lambda q: randomized_svd(x, rank, n_iter=q, random_state=0)[2].T, (4, 7, 12, 20, 32),
        ),
        "fbpca": (lambda q: fbpca.pca(x, rank, raw=True, n_iter=q)[2].T, (2, 4, 8, 16, 32)),
        "scipy svds": (lambda q: svds(x, rank, tol=10.0**-q, random_state=0)[2].T, (2, 4)),
    }  # fmt: skip
    if isinstance(x, np.ndarray):
        t = torch.from_numpy(x)
        found["torch.svd_lowrank"] = (
            lambda q: torch.svd_lowrank(t, rank + 10, niter=q)[2][:, :rank].numpy(),
            (2, 4, 8, 16, 32),
        )
    return found


def solve_ours(x: object, rank: int, *, assurance: Assurance) -> np.ndarray:
    """Right vectors (n, r), to a third of the target."""
    return factorize(x, rank, accuracy=TARGET / 3, assurance=assurance).B.T.numpy()


def lacks(matrix: Matrix, basis: np.ndarray, optimum: float) -> float:
    """The share of the optimal energy that a row space misses."""
    v = torch.linalg.qr(torch.from_numpy(np.ascontiguousarray(basis)).double()).Q
    return max(0.0, (optimum - float((v * matrix.apply_gram(v)).sum())) / optimum)


def run(case: Case, *, repeats: int, budget: float) -> list[dict[str, object]]:
    """Find each solver's least sufficient effort, then time all of them in turn."""
    x = case.make()
    matrix = as_matrix(x)
    if case.exact:
        optimum = float(torch.linalg.eigvalsh(matrix.gram())[-case.rank :].sum())
    else:
        optimum = factorize(x, case.rank, accuracy=1e-9, assurance="none").singular_values.square().sum().item()
    solvers: dict[str, Callable[[], np.ndarray]] = {
        "ours": partial(solve_ours, x, case.rank, assurance="none"),
        "ours with certificate": partial(solve_ours, x, case.rank, assurance="auto"),
    }
    missed: dict[str, float] = {name: lacks(matrix, solve(), optimum) for name, solve in solvers.items()}
    for name, (solve, efforts) in peers(x, case.rank).items():
        for effort in efforts:
            started = time.perf_counter()
            basis = solve(effort)
            took = time.perf_counter() - started
            missed[name] = lacks(matrix, basis, optimum)
            solvers[name] = lambda solve=solve, effort=effort: solve(effort)
            if missed[name] <= TARGET or took > budget:
                break
    times: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(repeats):
        for name, solver in solvers.items():
            if times[name] and times[name][0] > budget:
                continue
            started = time.perf_counter()
            solver()
            times[name].append(time.perf_counter() - started)
    ours = statistics.median(times["ours"])
    proved = statistics.median(times["ours with certificate"])
    rows = []
    for name, found in times.items():
        theirs = statistics.median(found)
        rows.append(
            {
                "case": case.name, "peer": name, "unit": "s", "ours": ours, "theirs": theirs, "ratio": theirs / ours,
                "ratio_with_certificate": theirs / proved, "low": min(found), "high": max(found),
                "missed_energy": missed[name], "equal_error": missed[name] <= TARGET,
            }
        )  # fmt: skip
        print(f"{case.name:44} {name:28} {theirs:8.3f} s  {theirs / ours:7.2f}x  missed {missed[name]:.1e}", flush=True)
    return rows


def run_memmap(gigabytes: float, columns: int = 400, rank: int = 10) -> list[dict[str, object]]:
    """A file larger than the memory that is used: seconds, and the peak of this process's memory."""
    rows_count = int(gigabytes * 1e9 / (4 * columns))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        block = dense(50_000, columns, slow)
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (rows_count, columns)}
            )
            left = rows_count
            while left > 0:
                file.write(block[: min(left, len(block))].tobytes())
                left -= len(block)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        started = time.perf_counter()
        found = factorize(path, rank, accuracy=TARGET / 3)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    name = f"{gigabytes:g} GB .npy, {rows_count:,} x {columns}, rank {rank}"
    print(
        f"{name}: {seconds:.1f} s, peak {peak:.2f} GB (before {before:.2f}), gap {found.certificate.relative_gap:.1e}"
    )
    return [{"case": name, "peer": "memory limit of 2 GB", "unit": "GB", "ours": peak, "theirs": 2.0, "ratio": 2 / peak,
             "seconds": seconds, "certified": found.certificate.certified}]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--memmap", type=float, default=None, metavar="GB", help="only the file, of this size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds after which a peer gets no more effort")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    if options.memmap is not None:
        rows += run_memmap(options.memmap)
    else:
        for case in QUICK if options.quick else FULL:
            if options.case in case.name:
                rows += run(case, repeats=options.repeats, budget=options.budget)
    if options.json:
        environment = describe_environment(torch.device("cpu")).model_dump()
        options.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
