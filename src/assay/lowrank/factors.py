"""The result of a factorisation, X ≈ AB, and the way from right singular vectors to factors."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.lowrank.krylov import falling_eigh
from assay.lowrank.matrix import Matrix
from assay.records.factorization import Certificate

_PART = 1 << 14  # rows handled at a time: they stay in the cache


@dataclass(frozen=True, eq=False)
class Factorization:
    """X ≈ ``A`` (m, r) @ ``B`` (r, n).

    ``singular_values`` (r,) are those of AB, falling; ``error`` is the objective ‖X − AB‖²_F + λ(‖A‖² + ‖B‖²), over the
    observed entries where there are gaps, with weights where there are weights. ``certificate`` says how far that can
    be from the best. ``missed`` says what the rule for the rank asked for and the factors do not keep; "" where they
    keep it. ``spectrum`` holds as many singular values of X as were computed on the way, ``history`` the
    objective after each step of an iterative method.
    """

    A: Tensor
    B: Tensor
    singular_values: Tensor
    certificate: Certificate
    method: str
    rule: str
    seconds: float
    passes: int
    spectrum: Tensor
    predicted_seconds: dict[str, float] = field(default_factory=dict)
    history: tuple[float, ...] = ()
    missed: str = ""

    @property
    def error(self) -> float:
        return self.certificate.error

    @property
    def rank(self) -> int:
        return self.A.shape[1]

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from assay.report.notebook import show_factors

        return show_factors(
            (self.A.shape[0], self.B.shape[1]),
            rank=self.rank,
            spectrum=self.spectrum.tolist(),
            certificate=self.certificate,
            missed=self.missed,
        )

    @property
    def product(self) -> Tensor:
        return self.A @ self.B


def factors_from_basis(matrix: Matrix, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best factorisation within a space of rows: thin SVD of XV, lifted; V (n, r) orthonormal.

    Returns U (rows, r) orthonormal in the matrix's dtype, σ float64 (r,) falling, and right vectors float64 (n, r).
    Two orthogonalisations, the second only where the first lost digits: the Gram matrix of XV resolves σ down to
    1e-8 σ₁ and is cheap; below 1e-3 σ₁ a Householder QR of XV takes over.
    """
    image = matrix.times(basis.to(matrix.dtype))
    small = gram_of(image, matrix)
    squares, turn = falling_eigh(small, unit=torch.finfo(image.dtype).eps)
    sigma = squares.clamp_min(0).sqrt()
    if float(sigma[-1]) > 1e-3 * float(sigma[0]) or matrix.local_rows != matrix.shape[0]:
        scale = torch.where(sigma > 0, sigma, torch.inf)
        scaled_turn = (turn / scale).to(image.dtype)
        for part in torch.split(image, _PART):  # in place: the image may be most of the memory in use
            part.copy_(part @ scaled_turn)
        return image, sigma, basis @ turn
    q, r = torch.linalg.qr(image)
    left, sigma, right = torch.linalg.svd(r.double())
    return q @ left.to(q.dtype), sigma, basis @ right.T


def split(left: Tensor, sigma: Tensor, right: Tensor, *, ridge: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Balanced factors A = U√s, B = √s Vᵀ with s = (σ − λ)₊: AᵀA = BBᵀ = diag(s).

    With a ridge this split is the optimum; without one it is the flattest of the equally good ones. ``left`` is
    overwritten: as large as A, it may be most of the memory in use.
    """
    root = (sigma - ridge).clamp_min(0).sqrt()
    return left.mul_(root.to(left.dtype)).to(dtype).contiguous(), (root[:, None] * right.T).to(dtype)


def gram_of(image: Tensor, matrix: Matrix) -> Tensor:
    """UᵀU in float64 over the rows of all processes; U (rows, k), widened a part at a time."""
    total = torch.zeros(image.shape[1], image.shape[1], dtype=torch.float64)
    buffer = torch.empty(_PART, image.shape[1], dtype=torch.float64)
    for part in torch.split(image, _PART):
        wide = buffer[: len(part)].copy_(part)
        total.addmm_(wide.T, wide)
    return matrix.sum_over_processes(total)
