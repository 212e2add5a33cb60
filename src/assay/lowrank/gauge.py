"""The same product in other factors: (AG, G⁻¹B) for any invertible G, and what that changes and what it does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from assay.arguments import checked
from assay.errors import OptionError

Form = Literal["left", "right", "balanced"]
FORMS = ("left", "right", "balanced")


@dataclass(frozen=True, eq=False)
class Factors:
    """A (m, r) and B (r, n)."""

    A: Tensor
    B: Tensor


@dataclass(frozen=True)
class GaugeComparison:
    """Whether two factorisations are the same solution.

    ``verdict``: ``same`` (equal products, so (A₂, B₂) = (A₁G, G⁻¹B₁)); ``tied`` (other products with the same error
    that differ within the space of equal singular values); ``different``. ``distance`` is ‖A₁B₁ − A₂B₂‖_F/‖A₁B₁‖_F,
    ``gauge`` the matrix G (r, r) where the verdict is ``same`` and the factors have full rank.
    """

    verdict: Literal["same", "tied", "different"]
    distance: float
    gauge: Tensor | None

    def __bool__(self) -> bool:
        return self.verdict == "same"


def canonical(A: Tensor, B: Tensor, *, form: Form = "balanced") -> Factors:
    """The one representative of all (AG, G⁻¹B) in a given form; float64.

    ``left``      AᵀA = I, B = ΣVᵀ
    ``right``     BBᵀ = I, A = UΣ
    ``balanced``  AᵀA = BBᵀ = Σ
    Columns come with falling singular values, and in each the entry of A of largest modulus is positive. What is left
    free are rotations among equal singular values. Raises :class:`OptionError` for another form.
    """
    left, sigma, right = product_svd(A, B)
    # the sign by the largest entry; among entries within rounding of it, by the first, so that it does not flip
    size = left.abs()
    first = (size >= size.amax(0) * (1 - 1e-8)).double().argmax(0)
    sign = torch.where(left.gather(0, first[None])[0] < 0, -1.0, 1.0).to(left.dtype)
    left, right = left * sign, right * sign
    if form == "left":
        return Factors(left, sigma[:, None] * right.T)
    if form == "right":
        return Factors(left * sigma, right.T)
    if form == "balanced":
        return Factors(left * sigma.sqrt(), sigma.sqrt()[:, None] * right.T)
    raise OptionError("form", expected=f"one of {', '.join(FORMS)}", got=repr(form))


@checked
def apply_gauge(A: Tensor, B: Tensor, G: Tensor) -> Factors:
    """(AG, G⁻¹B): the same product. Raises :class:`OptionError` when G is not square of side r, or singular."""
    r = A.shape[1]
    if G.shape != (r, r):
        raise OptionError("G", expected=f"({r}, {r})", got=tuple(G.shape))
    g = G.detach().cpu().double()  # in this order, here and below: not every device has float64
    condition = float(torch.linalg.cond(g)) if bool(g.isfinite().all()) else math.inf
    if not condition < 1e15:
        raise OptionError("G", expected="an invertible matrix", got=f"condition number {condition:.1e}")
    a, b = A.detach().cpu().double(), B.detach().cpu().double()
    return Factors((a @ g).to(A.dtype).to(A.device), torch.linalg.solve(g, b).to(B.dtype).to(B.device))


def product_svd(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin SVD of AB from its factors, O((m+n)r²): U (m, r), σ (r,), V (n, r); float64."""
    q_a, r_a = torch.linalg.qr(A.detach().cpu().double())
    q_b, r_b = torch.linalg.qr(B.detach().cpu().double().T)
    turn, sigma, back = torch.linalg.svd(r_a @ r_b.T)
    return q_a @ turn, sigma, q_b @ back.T


@checked
def same_solution(first: Factors | object, second: Factors | object, *, tolerance: float = 1e-6) -> GaugeComparison:
    """Decide up to gauge: anything with ``A`` and ``B`` will do, a :class:`Factorization` among them.

    Equal products (to ``tolerance``, relative to ‖A₁B₁‖_F) are the same solution. Products that differ but have the
    same singular values, and share the row and column spaces of all singular values but those equal to the last, are
    ``tied``: σ_r = σ_{r+1} lets a minimiser choose any directions in that space, and no G leads from one to the other.
    """
    a1, b1, a2, b2 = (getattr(f, side).detach().cpu().double() for f in (first, second) for side in ("A", "B"))
    if a1.shape != a2.shape or b1.shape != b2.shape:
        return GaugeComparison("different", math.inf, None)
    u1, s1, v1 = product_svd(a1, b1)
    u2, s2, v2 = product_svd(a2, b2)
    size = float(torch.linalg.vector_norm(s1))
    if size == 0:
        same = float(torch.linalg.vector_norm(s2)) == 0
        return GaugeComparison("same" if same else "different", 0.0 if same else math.inf, None)
    distance = _product_distance(u1, s1, v1, u2, s2, v2) / size
    if distance <= tolerance:
        gauge = torch.linalg.lstsq(a1, a2).solution if float(s1[-1]) > 1e-9 * float(s1[0]) else None
        return GaugeComparison("same", distance, gauge)
    loose = max(tolerance, 1e-9) * float(s1[0])
    equal_spectra = float((s1 - s2).abs().max()) <= loose
    firm = int((s1 > s1[-1] + 10 * loose).sum())  # singular values above the last group
    if equal_spectra and float(s1[-1]) > loose:
        part = _product_distance(u1[:, :firm], s1[:firm], v1[:, :firm], u2[:, :firm], s2[:firm], v2[:, :firm])
        if part <= 10 * tolerance * size:
            return GaugeComparison("tied", distance, None)
    return GaugeComparison("different", distance, None)


@checked
def sharpness_of_scaling(sigma_1: float, scale: float) -> float:
    """λ_max of the Hessian of ‖X − AB‖² at (cA, B/c), (A, B) a balanced minimiser: 2σ₁(c² + c⁻²)."""
    return 2 * sigma_1 * (scale**2 + scale**-2)


def condition_of_scaling(sigma_1: float, sigma_r: float, next_sigma: float, scale: float) -> float:
    """λ_max over the smallest positive λ at (cA, B/c), along directions that leave the gauge orbit.

    The Hessian splits into planes with [[2c⁻²σ_k, 2σ_j], [2σ_j, 2c²σ_k]] and their like; the smallest eigenvalue that
    belongs to no gauge direction is that of the pair (r, r+1).
    """
    mean = sigma_r * (scale**2 + scale**-2)
    low = mean - math.sqrt(mean * mean - 4 * (sigma_r**2 - next_sigma**2))
    return sharpness_of_scaling(sigma_1, scale) / low if low > 0 else math.inf


def _product_distance(u1: Tensor, s1: Tensor, v1: Tensor, u2: Tensor, s2: Tensor, v2: Tensor) -> float:
    """‖U₁S₁V₁ᵀ − U₂S₂V₂ᵀ‖_F without forming m×n: the difference is one product of thin factors, taken by QR."""
    if not len(s1):
        return 0.0
    _, r_left = torch.linalg.qr(torch.cat([u1 * s1, -u2 * s2], 1))
    _, r_right = torch.linalg.qr(torch.cat([v1, v2], 1))
    return float(torch.linalg.matrix_norm(r_left @ r_right.T))
