"""Is there one minimiser, or a whole orbit of them?"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import counted, drawn, fact, ratio
from assay.claims.networks import image_matrix
from assay.claims.rule import number
from assay.lowrank.factorization import factorize
from assay.lowrank.gauge import Factors, apply_gauge, same_solution, sharpness_of_scaling
from assay.lowrank.landscape import Hessian
from assay.records.claims import Chart, ClaimEvidence, Point
from assay.runtime import generator

RANK = 3
SCALES = (0.25, 0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0)
SAME_LOSS, OTHER_FACTORS = 1e-9, 0.1


@register_claim(
    "factor-gauge",
    "The minimiser of ‖X − AB‖² is not unique.",
    decides="Pairs (AG, G⁻¹B) for random G: the same loss to rounding, other factors, and a sharpness more than 1.1 "
    "times that of the balanced pair.",
    would_change="A penalty λ(‖A‖² + ‖B‖²): then only the rotations of the balanced pair remain. The product AB itself "
    "is unique when σ_r > σ_{r+1}.",
    references=(
        "Dinh, Pascanu, Bengio and Bengio 2017, Sharp minima can generalize for deep nets, arXiv:1703.04933",
        "Du, Hu and Lee 2018, Algorithmic regularization in learning deep homogeneous models, arXiv:1806.00900",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """Loss and sharpness at (AG, G⁻¹B) for random invertible G, rotations, and multiples of the identity."""
    X = image_matrix(settings, rows=settings.pick(tiny=20, quick=60, full=200))
    best = factorize(X, RANK, method="exact", seed=settings.seed)
    start = Factors(best.A, best.B)
    seeds = settings.seeds(settings.pick(tiny=3, quick=20, full=50))
    draws = [torch.randn(RANK, RANK, generator=generator(seed, 0x6A), dtype=torch.float64) for seed in seeds]
    orbit = [apply_gauge(best.A, best.B, G) for G in draws]
    turned = [apply_gauge(best.A, best.B, torch.linalg.qr(G).Q) for G in draws]
    loss, flat = _loss(X, start), _sharpness(X, start)
    off = max(abs(_loss(X, point) - loss) / loss for point in orbit)
    moved = min(_distance(start, point) for point in orbit)
    same = sum(bool(same_solution(start, point)) for point in orbit)
    return ClaimEvidence(
        how=f"X = {len(X)} images of {settings.data}, rank {RANK}: from the balanced minimiser (A, B) to (AG, G⁻¹B) "
        f"for {len(draws)} random matrices G with normal entries; the loss, the largest eigenvalue λmax of the Hessian "
        "(the sharpness), and how far the factors moved.",
        facts=(
            fact(
                "the largest change of the loss over the orbit",
                f"rounding, below {SAME_LOSS:.0e}",
                f"{number(off)} of it",
                off < SAME_LOSS,
            ),
            fact(
                "the least distance of the factors from (A, B)",
                f"above {OTHER_FACTORS:g} of their size",
                f"{number(moved)} of it",
                moved > OTHER_FACTORS,
            ),
            counted("pairs that are the same solution up to an invertible G", same, len(orbit)),
        ),
        samples=(
            ratio(
                "sharpness at (AG, G⁻¹B) over that at the balanced pair",
                [_sharpness(X, point) / flat for point in orbit],
                "increase",
                1.1,
                over="matrices G",
            ),
            ratio(
                "the same for rotations G",
                [_sharpness(X, point) / flat for point in turned],
                "same",
                1.01,
                over="rotations",
                decides=False,
            ),
        ),
        charts=(_scalings(X, start, sigma=float(best.singular_values[0]), loss=loss),),
        notes=(
            "Equally good factors are not equally easy to reach: gradient descent settles only where the step is below "
            "2/λmax. Rotations leave the sharpness as it is; the balanced pair, AᵀA = BBᵀ, is among the flattest.",
        ),
    )


def _loss(X: Tensor, factors: Factors) -> float:
    return float((X - factors.A @ factors.B).square().sum())


def _sharpness(X: Tensor, factors: Factors) -> float:
    return Hessian(X, factors.A, factors.B).extreme_eigenvalues()[1]


def _distance(first: Factors, second: Factors) -> float:
    """‖(A₁, B₁) − (A₂, B₂)‖ / ‖(A₁, B₁)‖."""
    away = (first.A - second.A).square().sum() + (first.B - second.B).square().sum()
    return float((away / (first.A.square().sum() + first.B.square().sum())).sqrt())


def _scalings(X: Tensor, start: Factors, *, sigma: float, loss: float) -> Chart:
    scaled = {c: apply_gauge(start.A, start.B, c * torch.eye(RANK, dtype=torch.float64)) for c in SCALES}
    measured = [Point(series="λmax, measured", x=c, y=_sharpness(X, point)) for c, point in scaled.items()]
    theory = [Point(series="2σ₁(c² + c⁻²)", x=c, y=sharpness_of_scaling(sigma, c)) for c in SCALES]
    same = [Point(series="loss", x=c, y=_loss(X, point)) for c, point in scaled.items()]
    most = max(point.y for point in measured) / min(point.y for point in measured)
    return Chart(
        finding=f"One loss, and a sharpness that differs by a factor of {most:.1f}",
        **drawn("line", x="c of (cA, B/c)", y="loss, and sharpness λmax", x_scale="log", y_scale="log"),
        points=(*theory, *measured, *same),
    )
