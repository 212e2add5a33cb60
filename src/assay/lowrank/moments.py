"""Second moments of what enters and leaves a layer, and the best map of rank r between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DAMPING = 0.03  # of the mean of a metric's diagonal: it is estimated from few images
DOUBT = 0.01  # of d/n: how far few samples may draw a map away from what it was
RIDGE = 1e-6  # of the mean variance: inputs that never vary say nothing about their weights


@dataclass(frozen=True, eq=False)
class Moments:
    """Over n samples of x (d,), y (o,): means, C = cov(x) (d, d), S = cov(y, x) (o, d), cov(y) (o, o); float64."""

    mean_x: Tensor
    mean_y: Tensor
    cov_x: Tensor
    cov_yx: Tensor
    cov_y: Tensor
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
            (y.T @ y).double(),
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
            cov_y=yy - torch.outer(my, my),
            n=self.n,
        )


@dataclass(frozen=True, eq=False)
class RankCurve:
    """All ranks at once: y ≈ P_r Q_r M (x − x̄) + ȳ, with what each leaves unexplained.

    ``outer`` P (o, o) and ``inner`` Q (o, o) = P⁻¹, of which rank r takes r columns and rows; ``map`` M (o, d);
    ``errors[r]`` = E‖y − y′‖²_F at rank r, for r = 0 … o; ``total`` = E‖y − ȳ‖²_F.
    """

    outer: Tensor
    inner: Tensor
    map: Tensor
    errors: Tensor
    total: float
    moments: Moments

    def factors(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """W₁ (r, d), W₂ (o, r) and the bias (o,) of y ≈ W₂W₁x + b; the scale is shared evenly between W₁ and W₂."""
        outer, inner = self.outer[:, :rank], self.inner[:rank] @ self.map
        bias = self.moments.mean_y - outer @ (inner @ self.moments.mean_x)
        sizes = torch.linalg.vector_norm(inner, dim=1) / torch.linalg.vector_norm(outer, dim=0).clamp_min(1e-12)
        scale = sizes.clamp_min(1e-12).sqrt()
        return inner / scale[:, None], outer * scale, bias


def best_maps(moments: Moments, metric: Tensor | None = None, prior: Tensor | None = None) -> RankCurve:
    """Minimise E‖y − W′x − b‖²_F over W′ of each rank r: W′ = R⁻¹U_rU_rᵀRM, M = S C⁻¹, where ‖e‖²_F = eᵀFe, F = RᵀR.

    ``prior`` P (o, d) is a map that is nearly right: then M = P + (S − PC)(C + λI)⁻¹, which stays near P where the n
    samples say little about the d inputs. U_r are the leading eigenvectors of R M C Mᵀ Rᵀ. ``metric`` F (o, o) tells
    how much an error of y matters in each direction; None: all alike. Where y = Wx and F = I this is W′ = U_rU_rᵀW with
    U_r from W C Wᵀ, and its error is the sum of the eigenvalues left out.
    Reference: reduced-rank regression, Izenman (1975); for layers Zhang et al., *Accelerating very deep convolutional
    networks* (2015), section 3.1.
    """
    o, d = moments.cov_yx.shape
    mean_variance = float(moments.cov_x.diagonal().mean()) or 1.0
    ridge = RIDGE if prior is None else max(RIDGE, DOUBT * d / moments.n)
    damped = moments.cov_x + ridge * mean_variance * torch.eye(d, dtype=torch.float64)
    start = torch.zeros(o, d, dtype=torch.float64) if prior is None else prior.double()
    full = start + torch.linalg.solve(damped, (moments.cov_yx - start @ moments.cov_x).T).T
    root = torch.eye(o, dtype=torch.float64) if metric is None else root_of(metric)
    explained = root @ full @ moments.cov_x @ full.T @ root.T
    values, vectors = torch.linalg.eigh((explained + explained.T) / 2)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    total = max(0.0, float(((root @ moments.cov_y) * root).sum()))
    # E‖y − QMx‖² = E‖y‖² − 2⟨Q, MSᵀ⟩ + ⟨Q, MCMᵀ⟩ for the projections Q of M's outputs
    gained = 2 * ((vectors.T @ root @ moments.cov_yx) * (vectors.T @ root @ full)).sum(1) - values
    kept = torch.cat([torch.zeros(1, dtype=torch.float64), gained.cumsum(0)])
    outer = torch.linalg.solve_triangular(root, vectors, upper=True)
    return RankCurve(outer, vectors.T @ root, full, (total - kept).clamp_min(0), total, moments)


def root_of(metric: Tensor) -> Tensor:
    """R (o, o), upper triangular, with RᵀR = F + δI: directions that seem not to matter still matter a little."""
    metric = metric.double()
    floor = DAMPING * float(metric.diagonal().mean()) + 1e-30
    root: Tensor = torch.linalg.cholesky(metric + floor * torch.eye(len(metric), dtype=torch.float64), upper=True)
    return root
