"""Which law a curve of gradient norms follows with its distance from the loss, and how far it reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from assay.records.recurrence import Decay

_FLAT = math.log(2)


def fit_decay(norms: Sequence[float]) -> Decay:
    """Fit norm(d) = a·g^d and norm(d) = a·(1+d)^−p to ``norms[d]``, d = 0, 1, … the distance from the loss.

    Least squares on logarithms over the finite norms above zero. The horizon −1/ln g is in steps.
    """
    values = np.asarray(norms, dtype=np.float64)
    usable = np.isfinite(values) & (values > 0)
    d, y = np.nonzero(usable)[0].astype(np.float64), np.log(values[usable])
    if len(y) < 3:
        nan = math.nan
        return Decay(
            law="undefined", rate=nan, exponent=nan, r2_exponential=nan, r2_polynomial=nan, horizon=nan, points=len(y)
        )
    slope, r2_exponential, residual_exponential = _line(d, y)
    exponent, r2_polynomial, residual_polynomial = _line(np.log1p(d), y)
    rate = math.exp(min(slope, 700.0))
    change = abs(slope) * (d[-1] - d[0])
    better = "exponential" if residual_exponential <= residual_polynomial else "polynomial"
    return Decay(
        law="flat" if max(change, y.max() - y.min()) < _FLAT else better,
        rate=rate,
        exponent=-exponent,
        r2_exponential=r2_exponential,
        r2_polynomial=r2_polynomial,
        horizon=-1 / slope if slope < 0 else math.inf,
        points=len(y),
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope, share of the variance explained, and residual sum of squares of the best straight line."""
    centred, total = x - x.mean(), float(((y - y.mean()) ** 2).sum())
    slope = float((centred * y).sum() / max(float((centred**2).sum()), 1e-300))
    residual = float(((y - y.mean() - slope * centred) ** 2).sum())
    return slope, 1 - residual / total if total > 0 else 1.0, residual
