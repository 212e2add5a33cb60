"""Methods that work on the factors themselves: alternating least squares and gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.lowrank.matrix import Matrix
from assay.runtime import generator


@dataclass(frozen=True, eq=False)
class Iterated:
    """Factors A (m, r), B (r, n) in float64, and the objective after each step."""

    A: Tensor
    B: Tensor
    history: tuple[float, ...]


def alternating_least_squares(
    matrix: Matrix, rank: int, *, ridge: float, energy: float, accuracy: float, steps: int, seed: int
) -> Iterated:
    """A ← XBᵀ(BBᵀ + λI)⁻¹, B ← (AᵀA + λI)⁻¹AᵀX in turn, each the exact minimiser for the other.

    Without a ridge a sweep is one step of subspace iteration: the row space turns towards the top right singular
    vectors at the rate (σ_{r+1}/σ_r)². Stops when
    what further sweeps can gain, by the geometric rate of the last two, is below accuracy·‖X‖².
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
        if len(history) > 2 and _left_to_gain(history) <= accuracy * energy:
            break
    return Iterated(a, b, tuple(history))


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
    return Iterated(a, b, tuple(history))


def _left_to_gain(history: list[float]) -> float:
    """δ + δq + δq² + …, from the last gain δ and its ratio q to the gain before."""
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
