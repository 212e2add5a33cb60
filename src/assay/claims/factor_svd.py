"""Is the truncated SVD the best factorisation, and does gradient descent get there?"""

from __future__ import annotations

from collections.abc import Sequence

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import counted, difference, drawn, fact
from assay.claims.networks import image_matrix
from assay.claims.rule import number
from assay.lowrank.certificate import certify
from assay.lowrank.factorization import factorize
from assay.lowrank.factors import Factorization
from assay.lowrank.landscape import measure_landscape
from assay.records.claims import Chart, ClaimEvidence, Point, Reference

RANK = 3
MARGIN = 1e-4  # per cent of ‖X‖²
SHOWN = 5
ROUNDING = 1e-13  # of ‖X‖²: sums of squares in float64 are no better than that


@register_claim(
    "factor-svd",
    "The truncated SVD is an optimal factorisation, and gradient descent finds one as good.",
    decides="A certificate for the SVD's factors, the kinds of all critical points near the minimum, and the squared "
    "error of gradient descent from 20 random starts, which may differ by at most 0.0001 % of ‖X‖².",
    would_change="Weights or gaps in X: then there may be local minima, and the SVD is no longer the answer.",
    references=(
        "Eckart and Young 1936, Psychometrika 1(3); Mirsky 1960, Quarterly Journal of Mathematics 11(1)",
        "Lee, Simchowitz, Jordan and Recht 2016, Gradient descent only converges to minimizers, arXiv:1602.04915",
        "Srebro and Jaakkola 2003, Weighted low-rank approximations (what weights change), ICML",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """The certificate of the SVD's factors, and what gradient descent reaches from 20 random starts."""
    X = image_matrix(settings, rows=settings.pick(tiny=30, quick=100, full=300))
    svd = factorize(X, RANK, method="exact", assurance="strict", seed=settings.seed)
    proof = certify(X, svd.A, svd.B, assurance="strict", seed=settings.seed)
    starts = settings.seeds(settings.pick(tiny=3, quick=20, full=50))
    steps = settings.pick(tiny=3000, quick=6000, full=20_000)
    runs = [
        factorize(X, RANK, method="descent", accuracy=1e-8, assurance="none", steps=steps, seed=seed) for seed in starts
    ]
    energy = float(X.square().sum())
    saddles = [point for point in measure_landscape(X, RANK).critical_points if point.kind != "global minimum"]
    strict = sum(point.kind == "strict saddle" for point in saddles)
    nearest = min(point.loss for point in saddles)
    escaped = sum(run.history[-1] < 0.5 * (svd.error + nearest) for run in runs)
    above = [100 * (float((X - run.A @ run.B).square().sum()) - svd.error) / energy for run in runs]
    return ClaimEvidence(
        how=f"X = {len(X)} images of {settings.data} as rows of {X.shape[1]} pixels, rank {RANK}: bounds on the best "
        f"error from a certificate that knows nothing of the SVD, and gradient descent on (A, B) from {len(runs)} "
        "small random starts, each beside the saddle at the origin.",
        facts=(
            fact(
                "what any factorisation could be better than the truncated SVD, at most",
                "nothing but rounding, 1e-6 of ‖X‖²",
                f"{number(proof.relative_gap)} of ‖X‖²",
                proof.certified and proof.relative_gap <= 1e-6,
            ),
            counted(
                "critical points next to the minimum that are strict saddles, not local minima", strict, len(saddles)
            ),
            counted("starts that end below every saddle", escaped, len(runs)),
        ),
        samples=(
            difference("squared error, gradient descent minus SVD", above, "% of ‖X‖²", "same", MARGIN, over="starts"),
        ),
        charts=(_descents(runs, nearest, best=svd.error, energy=energy),),
        notes=(
            "The error lingers where descent passes a saddle: one singular value is learned after the other. No start "
            "stays there, because every saddle has a direction of negative curvature.",
        ),
    )


def _descents(runs: Sequence[Factorization], nearest: float, *, best: float, energy: float) -> Chart:
    points = [
        Point(series=f"start {place}", x=step + 1, y=(run.history[step] - best) / energy)
        for place, run in enumerate(runs[:SHOWN], 1)
        for step in _thinned(len(run.history))
        if run.history[step] - best > ROUNDING * energy
    ]
    return Chart(
        finding="Every start leaves the saddles and ends at the SVD's error",
        **drawn(
            "line",
            x="steps of gradient descent",
            y="‖X − AB‖² above the SVD's, over ‖X‖²",
            x_scale="log",
            y_scale="log",
        ),
        points=tuple(points),
        references=(Reference(y=(nearest - best) / energy, name="the nearest saddle"),),
        note=f"The first {min(SHOWN, len(runs))} of {len(runs)} starts, down to rounding.",
    )


def _thinned(length: int) -> list[int]:
    """About 60 steps, evenly on a logarithmic axis, the last among them."""
    return sorted({min(length - 1, round(length ** (i / 60)) - 1) for i in range(61)})
