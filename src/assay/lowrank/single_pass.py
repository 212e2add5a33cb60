"""A factorisation from one reading of the rows, for iterators that cannot be read again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.errors import DataError
from assay.lowrank.matrix import Matrix, squared_norm
from assay.runtime import generator


@dataclass(frozen=True, eq=False)
class Sketch:
    """U (m, k), σ (k,), V (n, k), the number of rows read and ‖X‖²_F."""

    left: Tensor
    sigma: Tensor
    right: Tensor
    rows: int
    energy: float


def sketch(matrix: Matrix, rank: int, *, seed: int) -> Sketch:
    """X ≈ QC with Q = orth(XΩ) and C = (ΨQ)⁺ΨX; then the best rank-r part of QC.

    Ω is (n, k), Ψ (s, m) Gaussian, k = 3r + 5 and s = 2k + 1: the range from one side, the rows from the other, each
    block of X used once for both. The columns of Ψ are drawn from the seed as rows come, so m need not be known.

    Reference: Tropp, Yurtsever, Udell & Cevher, *Practical sketching algorithms for low-rank matrix approximation*,
    SIAM J. Matrix Anal. Appl. 38 (2017), algorithm 7, without their fixed storage split.
    """
    n = matrix.shape[1]
    k = min(n, 3 * rank + 5)
    s = 2 * k + 1
    omega = torch.randn(n, k, generator=generator(seed, 0x50), dtype=torch.float64)
    draw = generator(seed, 0x51)
    ranges, tests, rows, energy = [], [], 0, 0.0
    seen = torch.zeros(s, n, dtype=torch.float64)  # ΨX
    for block in matrix.blocks():
        wide = block.double()
        part = squared_norm(wide)
        if not part < float("inf"):
            _refuse(wide, rows)
        test = torch.randn(len(wide), s, generator=draw, dtype=torch.float64)
        ranges.append((wide @ omega).to(matrix.dtype))
        tests.append(test.to(matrix.dtype))
        seen += test.T @ wide
        energy += part
        rows += len(wide)
    q = torch.linalg.qr(torch.cat(ranges).double()).Q
    mixed = torch.cat(tests).double().T @ q  # ΨQ (s, k)
    core = torch.linalg.lstsq(mixed, seen).solution  # C (k, n)
    left, sigma, right = torch.linalg.svd(core, full_matrices=False)
    return Sketch(q @ left, sigma, right.T, rows, energy)


def _refuse(block: Tensor, start: int) -> None:
    wrong = ~block.isfinite()
    if not bool(wrong.any()):
        raise DataError("X", expected="entries whose squares are finite", got=f"|x| up to {float(block.abs().max()):g}")
    row, column = wrong.nonzero()[0].tolist()
    value = float(block[row, column])
    got = f"{value} at [{start + row}, {column}], {int(wrong.sum())} non-finite in its block"
    raise DataError("X", expected="finite numbers", got=got)
