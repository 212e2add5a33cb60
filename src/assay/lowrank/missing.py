"""Matrices with gaps, or with entries that count for more than others."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from assay.arguments import checked
from assay.errors import DataError, OptionError
from assay.lowrank.certificate import TOLERANCE, no_certificate
from assay.lowrank.factors import Factorization
from assay.lowrank.gauge import canonical, product_svd
from assay.lowrank.sources import as_matrix
from assay.records.factorization import Certificate
from assay.runtime import generator

LARGEST = 100_000_000  # entries: a weighted matrix is dense


@checked
def complete(
    X: object,
    rank: int,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    ridge: float = 0.0,
    accuracy: float = 1e-8,
    steps: int = 500,
    seed: int = 0,
) -> Factorization:
    """Minimise Σ w_ij (x_ij − (AB)_ij)² + λ(‖A‖²_F + ‖B‖²_F), w ≥ 0, by weighted alternating least squares.

    ``mask`` (m, n) is true where an entry is known; left out, NaN entries are gaps. ``weights`` (m, n) are at least 0;
    both together multiply. Each sweep solves one ridge regression of size r for every row, then for every column
    (Srebro & Jaakkola 2003; Hastie, Mazumder, Lee & Zadeh 2015). The start is the truncated SVD of the matrix with its
    gaps filled by column means.

    The problem is not convex and its local minima are not all global, so there is no certificate, with one exception:
    with a ridge it is the nuclear-norm problem as long as the rank is not a constraint that binds, and then a dual
    point gives a bound, which is tried. A row or column without any known entry gets zeros.

    Raises :class:`DataError` for a mask or weights that do not fit, are negative or not finite, or when nothing is
    known; :class:`OptionError` for a rank beyond 1..min(m, n) or a negative ridge.
    """
    started = time.perf_counter()
    x, w = _prepare(X, mask, weights)
    m, n = x.shape
    if isinstance(rank, bool) or int(rank) != rank or not 1 <= rank <= min(m, n):
        raise OptionError("rank", expected=f"a whole number in 1..{min(m, n)}", got=rank)
    if not (0 <= ridge < float("inf")):
        raise OptionError("ridge", expected="a number of at least 0", got=ridge)
    a, b = _start(x, w, rank, seed)
    energy = float((w * x.square()).sum())
    history = [_objective(x, w, a, b, ridge)]
    for _ in range(steps):
        a = _solve_rows(x, w, b, ridge)
        b = _solve_rows(x.T, w.T, a.T, ridge).T
        history.append(_objective(x, w, a, b, ridge))
        if history[-2] - history[-1] <= accuracy * max(energy, 1e-300):
            break
    balanced = canonical(a, b)
    sigma = product_svd(balanced.A, balanced.B)[1]
    return Factorization(
        A=balanced.A,
        B=balanced.B,
        singular_values=sigma,
        certificate=_certify(x, w, balanced.A, balanced.B, ridge=ridge, energy=energy),
        method="weighted als",
        rule=f"rank {rank}",
        seconds=time.perf_counter() - started,
        passes=2 * len(history),
        spectrum=sigma,
        history=tuple(history),
    )


@checked
def soft_impute(
    X: object, ridge: float, *, mask: Tensor | None = None, accuracy: float = 1e-10, steps: int = 2000
) -> Factorization:
    """Minimise Σ_known (x_ij − z_ij)² + 2λ‖Z‖_*, convex, by soft-impute: fill the gaps with Z, shrink every σ by λ.

    The result, Z = AB with balanced factors of its own rank, comes with a certificate from duality. Reference:
    Mazumder, Hastie & Tibshirani, *Spectral regularization algorithms for learning large incomplete matrices*, JMLR 11
    (2010). Raises as :func:`complete` does; λ must be positive.
    """
    started = time.perf_counter()
    x, w = _prepare(X, mask, None)
    if not (0 < ridge < float("inf")):
        raise OptionError("ridge", expected="a positive number", got=ridge)
    energy = float((w * x.square()).sum())
    z = torch.zeros_like(x)
    before, momentum, history = z, 1.0, []
    left, sigma, right = torch.linalg.svd(z, full_matrices=False)
    for _ in range(steps):
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = z + (momentum - 1) / faster * (z - before)  # Nesterov: the gap closes with 1/k²
        left, sigma, right = torch.linalg.svd(torch.where(w > 0, x, ahead), full_matrices=False)
        sigma = (sigma - ridge).clamp_min(0)
        before, z, momentum = z, (left * sigma) @ right, faster
        history.append(float((w * (x - z).square()).sum()) + 2 * ridge * float(sigma.sum()))
        if len(history) > 1 and history[-1] > history[-2]:
            momentum = 1.0
        if float((z - before).square().sum()) <= accuracy * max(float(z.square().sum()), 1e-300):
            break
    rank = max(1, int((sigma > 1e-12 * float(sigma[0])).sum()))
    root = sigma[:rank].sqrt()
    a, b = left[:, :rank] * root, root[:, None] * right[:rank]
    return Factorization(
        A=a,
        B=b,
        singular_values=sigma[:rank],
        certificate=_certify(x, w, a, b, ridge=ridge, energy=energy),
        method="soft-impute",
        rule=f"nuclear norm, λ = {ridge:g}",
        seconds=time.perf_counter() - started,
        passes=len(history),
        spectrum=sigma[:rank],
        history=tuple(history),
    )


def _certify(x: Tensor, w: Tensor, a: Tensor, b: Tensor, *, ridge: float, energy: float) -> Certificate:
    primal = _objective(x, w, a, b, ridge)
    if ridge == 0:
        reason = "with gaps or weights the best factorisation of a rank is not known to be computable"
        return no_certificate(primal, energy=energy, ridge=ridge, reason=reason)
    dual = _duality(x, w, a, b, ridge=ridge)
    gap = max(0.0, primal - dual)
    relative = gap / energy if energy else 0.0
    certified = relative <= TOLERANCE
    reason = "" if certified else f"the duality gap is {relative:.1e} of ‖X‖², more than {TOLERANCE:.0e}"
    return no_certificate(primal, energy=energy, ridge=ridge, reason=reason).model_copy(
        update={
            "guarantee": "deterministic",
            "failure_probability": 0.0,
            "certified": certified,
            "error_low": primal * (1 - 1e-12),
            "error_high": primal * (1 + 1e-12),
            "optimum_low": max(0.0, dual),
            "optimum_high": primal * (1 + 1e-12),
            "gap_high": gap,
            "relative_gap": relative,
        }
    )


def _duality(x: Tensor, w: Tensor, a: Tensor, b: Tensor, *, ridge: float) -> float:
    """Σ w(x − z)² + 2λ‖Z‖_* ≥ 2⟨Y, X⟩ − Σ y²/w for every Y on the known entries with ‖Y‖₂ ≤ λ.

    Y is the weighted residual, scaled until its spectral norm is at most λ; rounding is given 1e-10.
    """
    y = w * (x - a @ b)
    norm = float(torch.linalg.matrix_norm(y, 2))
    y = y * min(1.0, ridge / (norm * (1 + 1e-10))) if norm > 0 else y
    known = w > 0
    dual = 2 * float((y * x)[known].sum()) - float((y[known].square() / w[known]).sum())
    return dual - 1e-12 * float((w * x.square()).sum())


def _objective(x: Tensor, w: Tensor, a: Tensor, b: Tensor, ridge: float) -> float:
    return float((w * (x - a @ b).square()).sum()) + ridge * float(a.square().sum() + b.square().sum())


def _prepare(source: object, mask: Tensor | None, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    matrix = as_matrix(source)
    m, n = matrix.shape
    if m < 0 or m * n > LARGEST:
        raise DataError("X", expected=f"at most {LARGEST:,} entries in memory, with gaps or weights", got=f"{m} × {n}")
    x = matrix.dense()
    w = torch.ones_like(x) if mask is not None else (~x.isnan()).double()
    for name, given in (("mask", mask), ("weights", weights)):
        if given is None:
            continue
        extra = torch.as_tensor(given).detach().cpu()
        if extra.shape != x.shape:
            raise DataError(name, expected=f"({m}, {n}), as X", got=tuple(extra.shape))
        extra = extra.double()
        if not bool((extra.isfinite() & (extra >= 0)).all()):
            raise DataError(name, expected="finite numbers of at least 0", got="others")
        w = w * ((extra > 0).double() if name == "mask" else extra)
    known = w > 0
    if not bool(known.any()):
        raise DataError("X", expected="at least one known entry", got="none")
    wrong = known & ~x.isfinite()
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        got = f"{float(x[row, column])} at [{row}, {column}], {int(wrong.sum())} non-finite among the known ones"
        raise DataError("X", expected="finite numbers", got=got)
    x = torch.where(known, x, 0.0)
    energy = float((w * x.square()).sum())
    if bool(x.any()) and not 1e-150 < energy < 1e150:
        expected = "entries whose squares stay in range: scale X"
        raise DataError("X", expected=expected, got=f"a largest entry of {float(x.abs().max()):.3g}")
    return x, w


def _start(x: Tensor, w: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """The truncated SVD of X with gaps filled by column means, nudged so that no direction starts at exactly zero."""
    count = w.sum(0)
    means = torch.where(count > 0, (w * x).sum(0) / count.clamp_min(1e-300), 0.0)
    left, sigma, right = torch.linalg.svd(torch.where(w > 0, x, means), full_matrices=False)
    root = (sigma[:rank] + 1e-3 * sigma[0]).sqrt()
    nudge = 1e-3 * torch.randn(x.shape[0], rank, generator=generator(seed, 0xA0), dtype=torch.float64)
    return left[:, :rank] * root + nudge * root[0] / len(x) ** 0.5, root[:, None] * right[:rank]


def _solve_rows(x: Tensor, w: Tensor, b: Tensor, ridge: float) -> Tensor:
    """Row i of A minimises Σ_j w_ij (x_ij − a_i b_j)² + λ‖a_i‖²: (B W_i Bᵀ + λI)⁻¹ B W_i x_i."""
    r, parts = len(b), []
    count = max(1, 20_000_000 // (r * r + x.shape[1]))
    outer = (b[:, None, :] * b[None, :, :]).reshape(r * r, -1)  # (r², n)
    eye = torch.eye(r, dtype=torch.float64)
    for rows, weights in zip(torch.split(x, count), torch.split(w, count), strict=True):
        inner = (weights @ outer.T).reshape(-1, r, r)
        # a row without known entries has nothing but this damping, and gets zeros
        size = float(inner.diagonal(dim1=1, dim2=2).sum(1).max()) or 1.0
        damped = inner + (ridge + 1e-12 * size) * eye
        target = (weights * rows) @ b.T
        parts.append(torch.linalg.solve(damped, target[:, :, None])[:, :, 0])
    return torch.cat(parts)
