"""Second moments of what enters and leaves a layer, and the best map of rank r between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-6  # of the mean variance: inputs that never vary say nothing about their weights


@dataclass(frozen=True, eq=False)
class Moments:
    """Over n samples of x (d,) and y (o,): means, C = cov(x) (d, d), S = cov(y, x) (o, d), and E‖y − ȳ‖²; float64."""

    mean_x: Tensor
    mean_y: Tensor
    cov_x: Tensor
    cov_yx: Tensor
    variance_y: float
    n: int


class MomentSum:
    """Collects :class:`Moments` batch by batch."""

    def __init__(self) -> None:
        self.n = 0
        self.sums: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """x (s, d), y (s, o): products in float32 over a batch, sums in float64."""
        # Large means would eat the digits of float32 products, so everything is taken about the first batch's mean.
        if not self.sums:
            self.about_x, self.about_y = x.mean(0), y.mean(0)
        x, y = x - self.about_x, y - self.about_y
        parts = [
            x.double().sum(0),
            y.double().sum(0),
            (x.T @ x).double(),
            (y.T @ x).double(),
            y.double().square().sum(),
        ]
        self.sums = parts if not self.sums else [total + part for total, part in zip(self.sums, parts, strict=True)]
        self.n += len(x)

    def finish(self) -> Moments:
        """The moments of all that was added."""
        mx, my, xx, yx, yy = (total / self.n for total in self.sums)
        return Moments(
            mean_x=mx + self.about_x.double(),
            mean_y=my + self.about_y.double(),
            cov_x=xx - torch.outer(mx, mx),
            cov_yx=yx - torch.outer(my, mx),
            variance_y=max(0.0, float(yy) - float(my @ my)),
            n=self.n,
        )


@dataclass(frozen=True, eq=False)
class RankCurve:
    """All ranks at once: y ≈ U_r U_rᵀ M (x − x̄) + ȳ, with what each leaves unexplained.

    ``directions`` U (o, o), ``map`` M (o, d), ``errors[r]`` = E‖y − y′‖² at rank r, for r = 0 … o.
    """

    directions: Tensor
    map: Tensor
    errors: Tensor
    moments: Moments

    def factors(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """W₁ (r, d), W₂ (o, r) and the bias (o,) of y ≈ W₂W₁x + b; the scale is shared evenly between W₁ and W₂."""
        top = self.directions[:, :rank]
        inner = top.T @ self.map
        bias = self.moments.mean_y - top @ (inner @ self.moments.mean_x)
        scale = torch.linalg.vector_norm(inner, dim=1).clamp_min(1e-12).sqrt()
        return inner / scale[:, None], top * scale, bias


def best_maps(moments: Moments) -> RankCurve:
    """Minimise E‖y − W′x − b‖² over W′ of each rank r: W′ = U_rU_rᵀM, M = S C⁻¹, U_r leading eigenvectors of M C Mᵀ.

    Where y = Wx this is W′ = U_rU_rᵀW with U_r from W C Wᵀ, and its error is the sum of the eigenvalues left out.
    Reference: reduced-rank regression, Izenman (1975); for layers Zhang et al., *Accelerating very deep convolutional
    networks* (2015), section 3.1.
    """
    d = len(moments.mean_x)
    mean_variance = float(moments.cov_x.diagonal().mean()) or 1.0
    damped = moments.cov_x + RIDGE * mean_variance * torch.eye(d, dtype=torch.float64)
    full = torch.linalg.solve(damped, moments.cov_yx.T).T
    explained = moments.cov_yx @ full.T
    values, vectors = torch.linalg.eigh((explained + explained.T) / 2)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    kept = torch.cat([torch.zeros(1, dtype=torch.float64), values.cumsum(0)])
    return RankCurve(vectors, full, (moments.variance_y - kept).clamp_min(0), moments)
