"""The Hessian of f(A, B) = ‖X − AB‖²_F: as an operator, in blocks, and its spectrum in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.lowrank.gauge import Factors
from assay.runtime import generator


@dataclass(frozen=True, eq=False)
class Hessian:
    """∇²f at (A, B), acting on directions (U, V) of the same shapes; float64.

    With R = AB − X and the row-major vec of torch, K the commutation matrix:
    H_AA = 2(I_m ⊗ BBᵀ), H_BB = 2(AᵀA ⊗ I_n), H_AB = 2[A ⊗ B + (R ⊗ I_r)K_{n,r}];
    the quadratic form is 2‖UB + AV‖² + 4⟨R, UV⟩.
    """

    X: Tensor
    A: Tensor
    B: Tensor

    @property
    def residual(self) -> Tensor:
        """R = AB − X."""
        return self.A @ self.B - self.X

    @property
    def size(self) -> int:
        """r(m + n)."""
        return self.A.numel() + self.B.numel()

    def apply(self, U: Tensor, V: Tensor) -> Factors:
        """(H_AA U + H_AB V, H_BA U + H_BB V), without forming anything of size (mn, mn)."""
        change, r = U @ self.B + self.A @ V, self.residual
        return Factors(2 * (change @ self.B.T + r @ V.T), 2 * (self.A.T @ change + U.T @ r))

    def quadratic_form(self, U: Tensor, V: Tensor) -> float:
        """2‖UB + AV‖² + 4⟨R, UV⟩: the second derivative of f along (U, V)."""
        change = U @ self.B + self.A @ V
        return 2 * float(change.square().sum()) + 4 * float((self.residual * (U @ V)).sum())

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """H_AA (mr, mr), H_AB (mr, rn), H_BB (rn, rn) by the Kronecker formulas."""
        (m, r), n = self.A.shape, self.B.shape[1]
        eye_m, eye_n, eye_r = (torch.eye(k, dtype=torch.float64) for k in (m, n, r))
        # row-major vec(V) (r, n) to vec(Vᵀ) (n, r)
        swap = torch.eye(r * n, dtype=torch.float64).reshape(r, n, r * n).transpose(0, 1).reshape(n * r, r * n)
        # (UB)·(AV) couples U[i,k] and V[l,j] by A[i,l]·B[k,j]
        mixed = torch.einsum("il,kj->iklj", self.A, self.B).reshape(m * r, r * n)
        cross = 2 * (mixed + torch.kron(self.residual, eye_r) @ swap)
        return 2 * torch.kron(eye_m, self.B @ self.B.T), cross, 2 * torch.kron(self.A.T @ self.A, eye_n)

    def matrix(self) -> Tensor:
        """The whole (r(m+n), r(m+n)), from its blocks."""
        aa, ab, bb = self.blocks()
        return torch.cat([torch.cat([aa, ab], 1), torch.cat([ab.T, bb], 1)])

    def extreme_eigenvalues(self, *, steps: int = 80, seed: int = 0) -> tuple[float, float]:
        """The smallest and the largest eigenvalue, by Lanczos with full reorthogonalisation on the operator."""
        vector = torch.randn(self.size, generator=generator(seed, 0x80), dtype=torch.float64)
        basis: list[Tensor] = []
        images: list[Tensor] = []
        for _ in range(min(steps, self.size)):
            for old in (*basis, *basis):
                vector = vector - old * (old @ vector)
            norm = float(torch.linalg.vector_norm(vector))
            if norm < 1e-12 * (float(torch.linalg.vector_norm(images[-1])) if images else 1.0):
                break
            basis.append(vector / norm)
            vector = self._flat(basis[-1])
            images.append(vector)
        q, hq = torch.stack(basis, 1), torch.stack(images, 1)
        small = q.T @ hq
        values = torch.linalg.eigvalsh((small + small.T) / 2)
        return float(values[0]), float(values[-1])

    def _flat(self, direction: Tensor) -> Tensor:
        split = self.A.numel()
        image = self.apply(direction[:split].reshape(self.A.shape), direction[split:].reshape(self.B.shape))
        return torch.cat([image.A.reshape(-1), image.B.reshape(-1)])


def predict_spectrum(sigma: Tensor, *, shape: tuple[int, int], rank: int, chosen: Sequence[int]) -> Tensor:
    """All r(m+n) eigenvalues of the Hessian at the balanced critical point on the singular values ``chosen``, rising.

    With S the chosen, s of them, and p = min(m, n): for i, k in S 2(σ_i + σ_k) and 0 (the gauge, s² times); for i in
    S and j outside 2(σ_i ± σ_j); for i in S 2σ_i |m − n| times; and for each of the r − s empty columns ±2σ_j for j
    outside S, and zeros. ``sigma`` are all p singular values of X.
    """
    m, n = shape
    inside = [float(sigma[i]) for i in chosen]
    outside = [float(value) for j, value in enumerate(sigma) if j not in set(chosen)]
    s, empty = len(inside), rank - len(inside)
    values = [2 * (a + b) for a in inside for b in inside] + [0.0] * s * s
    values += [2 * (a + sign * b) for a in inside for b in outside for sign in (1, -1)]
    values += [2 * a for a in inside] * abs(m - n)
    values += [sign * 2 * b for b in outside for sign in (1, -1)] * empty
    values += [0.0] * (empty * (m + n - 2 * len(outside)))
    return torch.tensor(sorted(values), dtype=torch.float64)


def critical_point(left: Tensor, sigma: Tensor, right: Tensor, *, rank: int, chosen: Sequence[int]) -> Factors:
    """The balanced critical point A = U_S√Σ_S, B = √Σ_S V_Sᵀ, with r − s empty columns; U (m, p), V (n, p)."""
    a = torch.zeros(left.shape[0], rank, dtype=torch.float64)
    b = torch.zeros(rank, right.shape[0], dtype=torch.float64)
    for column, place in enumerate(chosen):
        root = sigma[place].sqrt()
        a[:, column], b[column] = left[:, place] * root, right[:, place] * root
    return Factors(a, b)
