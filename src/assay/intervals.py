"""Confidence intervals of proportions and of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from assay.records.accuracy import Z_95, wilson_interval


def share_bounds(count: float, n: float, *, level: float) -> tuple[float, float]:
    """One-sided bounds of a proportion, each exact at ``level``. Reference: Clopper & Pearson 1934, Biometrika 26.

    ``count`` need not be a whole number: the mean over ``n`` samples of a number in [0, 1] varies no more than that of
    a yes or no with the same mean, so that the bounds of ``n`` times that mean are wide enough.
    """
    from scipy.special import betaincinv

    low = 0.0 if count <= 0 else float(betaincinv(count, n - count + 1, level))
    high = 1.0 if count >= n else float(betaincinv(count + 1, n - count, 1 - level))
    return low, high


def mean_bounds(values: Sequence[float], *, level: float) -> tuple[float, float]:
    """Student's one-sided bounds of the mean of what ``values`` were drawn from; each errs about as often as ``level``.

    Infinitely wide for fewer than two values, for equal ones, whose spread is unknown, and where one is not finite.
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)) or min(values) == max(values):
        return -math.inf, math.inf
    half = float(stdtrit(n - 1, 1 - level)) * stdev(values) / math.sqrt(n)
    return fmean(values) - half, fmean(values) + half


def newcombe(correct_a: int, n_a: int, correct_b: int, n_b: int) -> tuple[float, float]:
    """95 % interval of p_b − p_a on different samples, from the two Wilson intervals (Newcombe's method 10).

    Reference: Newcombe 1998, *Interval estimation for the difference between independent proportions*, Statistics in
    Medicine 17, 873–890.
    """
    return _combine(correct_a, n_a, correct_b, n_b, correlation=0.0, z=Z_95)


def newcombe_paired(both: int, lost: int, gained: int, neither: int, *, z: float = Z_95) -> tuple[float, float]:
    """Interval of p_b − p_a on the same samples, 95 % by default: Wilson's joined by the φ coefficient (method 10).

    ``both`` correct, correct in a only (``lost``), in b only (``gained``), ``neither``. φ is the correlation of the
    two outcomes, its numerator corrected for continuity where it is positive. ``z`` is the quantile of the standard
    normal. Reference: Newcombe 1998, *Improved confidence intervals for the difference between binomial proportions
    based on paired data*, Statistics in Medicine 17, 2635–2650.
    """
    n = both + lost + gained + neither
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    cross = both * neither - lost * gained
    cross_corrected = max(0.0, cross - n / 2) if cross > 0 else float(cross)
    correlation = cross_corrected / math.sqrt(margins) if margins else 0.0
    return _combine(both + lost, n, both + gained, n, correlation=correlation, z=z)


def _combine(
    correct_a: int, n_a: int, correct_b: int, n_b: int, *, correlation: float, z: float
) -> tuple[float, float]:
    if n_a == 0 or n_b == 0:
        return (-1.0, 1.0)
    a, b = correct_a / n_a, correct_b / n_b
    (low_a, high_a), (low_b, high_b) = wilson_interval(correct_a, n_a, z=z), wilson_interval(correct_b, n_b, z=z)

    def half_width(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))

    return (b - a - half_width(b - low_b, high_a - a), b - a + half_width(high_b - b, a - low_a))
