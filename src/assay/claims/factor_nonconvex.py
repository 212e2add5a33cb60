"""Is the least-squares factorisation a convex problem?"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import drawn, fact
from assay.claims.networks import image_matrix
from assay.claims.rule import number
from assay.lowrank.gauge import Factors
from assay.lowrank.landscape import Hessian, find_witness, measure_landscape, predict_spectrum
from assay.records.claims import Chart, ClaimEvidence, ClaimFact, Point

RANK = 2


@register_claim(
    "factor-nonconvex",
    "The factorisation problem min ‖X − AB‖² is not convex.",
    decides="A witness (two minimisers with a higher point half-way) and a negative eigenvalue of the Hessian: either "
    "proves it.",
    would_change="Nothing that is measured: it is a theorem for every X other than 0. With A fixed, or with a nuclear "
    "norm of AB in place of the rank, the problem is convex.",
    references=(
        "Baldi and Hornik 1989, Neural networks and principal component analysis, Neural Networks 2(1)",
        "Eckart and Young 1936, Psychometrika 1(3)",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """A witness on x = 1 and on a matrix of images, and the Hessian at the origin and at the minimum."""
    X = image_matrix(settings, rows=settings.pick(tiny=12, quick=40, full=100))
    surface = measure_landscape(X, RANK, seed=settings.seed)
    sigma = torch.linalg.svdvals(X)
    one = torch.ones(1, 1, dtype=torch.float64)
    scalar = find_witness(one, Factors(one, one))
    origin = next(point for point in surface.critical_points if not point.chosen)
    return ClaimEvidence(
        how=f"f(A, B) = ‖X − AB‖² of rank {RANK} for X = {len(X)} images of {settings.data} as rows of "
        f"{X.shape[1]} pixels, and for the number X = 1: f at two minimisers and half-way between, and the eigenvalues "
        "of the Hessian.",
        facts=(
            _witness("f(1, 1), f(−1, −1) and f(0, 0) for X = 1", scalar),
            _witness("f(A, B), f(−A, −B) and f(0, 0) for the images", surface.witness),
            fact(
                "the smallest eigenvalue of the Hessian at the origin",
                "below 0",
                f"{number(origin.computed)}, as −2σ₁ = {number(-2 * float(sigma[0]))} says",
                origin.computed < 0,
            ),
        ),
        charts=(_hill(sigma), _spectra(X, sigma)),
        notes=(
            "A function is convex only if it lies below its chords and no Hessian has a negative eigenvalue. "
            "One counterexample of either kind is a proof, so no seed and no interval is needed.",
            f"In A alone, or in B alone, f is convex. Gradient descent settles at the minimum below a step of "
            f"{number(surface.safe_step)} = 1/(2σ₁).",
        ),
    )


def _witness(name: str, values: tuple[float, float, float]) -> ClaimFact:
    first, second, middle = values
    return fact(
        name,
        "the last higher than the mean of the others",
        ", ".join(number(value) for value in values),
        middle > 0.5 * (first + second),
    )


def _hill(sigma: Tensor) -> Chart:
    """f(tA, tB) = Σ_{i≤r} (1 − t²)²σ_i² + Σ_{i>r} σ_i², from one minimiser to its mirror image."""
    kept, rest = float(sigma[:RANK].square().sum()), float(sigma[RANK:].square().sum())
    shares = [t / 20 for t in range(-24, 25)]
    way = [Point(series="f on the way", x=t, y=((1 - t * t) ** 2 * kept + rest) / (kept + rest)) for t in shares]
    chord = [Point(series="the chord", x=float(t), y=rest / (kept + rest)) for t in (-1, 1)]
    return Chart(
        finding="Half-way between two minimisers lies a hill",
        **drawn("line", x="t, on the way (tA, tB)", y="f / ‖X‖²"),
        points=(*way, *chord),
        note="A convex function would lie below its chord.",
    )


def _spectra(X: Tensor, sigma: Tensor) -> Chart:
    """All r(m + n) eigenvalues, computed, in units of σ₁."""
    zero = Hessian(X, torch.zeros(len(X), RANK).double(), torch.zeros(RANK, X.shape[1]).double())
    origin = torch.linalg.eigvalsh(zero.matrix()) / sigma[0]
    minimum = predict_spectrum(sigma, shape=(len(X), X.shape[1]), rank=RANK, chosen=range(RANK)) / sigma[0]
    negative = int((origin < -1e-9).sum())
    return Chart(
        finding=f"At the origin {negative} directions lead downhill, at the minimum none",
        **drawn("points", x="eigenvalue of the Hessian, in rising order", y="value, in units of σ₁"),
        points=tuple(
            Point(series=name, x=i, y=float(value))
            for name, values in (("at the origin", origin), ("at the minimum", minimum))
            for i, value in enumerate(values, 1)
        ),
    )
