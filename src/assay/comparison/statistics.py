"""Holm's correction for multiple tests, Newcombe's intervals of a difference of proportions, and the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.records.accuracy import wilson_interval

RESAMPLES = 10_000
Counts = NDArray[np.int64]
Values = NDArray[np.float64]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (m,): p₍ᵢ₎ becomes max over j ≤ i of min(1, (m − j)·p₍ⱼ₎), j from 0.

    Rejecting where the adjusted p is below α keeps the family-wise error rate at α under any dependence of the tests.
    Reference: Holm 1979, *A simple sequentially rejective multiple test procedure*.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def newcombe(correct_a: int, n_a: int, correct_b: int, n_b: int) -> tuple[float, float]:
    """95 % interval of p_b − p_a on different samples, from the two Wilson intervals (Newcombe's method 10).

    Reference: Newcombe 1998, *Interval estimation for the difference between independent proportions*, Statistics in
    Medicine 17, 873–890.
    """
    return _combine(correct_a, n_a, correct_b, n_b, correlation=0.0)


def newcombe_paired(both: int, lost: int, gained: int, neither: int) -> tuple[float, float]:
    """95 % interval of p_b − p_a on the same samples: Wilson intervals joined by the φ coefficient (method 10).

    ``both`` correct, correct in a only (``lost``), in b only (``gained``), ``neither``. φ is the correlation of the
    two outcomes, its numerator corrected for continuity where it is positive. Reference: Newcombe 1998, *Improved
    confidence intervals for the difference between binomial proportions based on paired data*, Statistics in
    Medicine 17, 2635–2650.
    """
    n = both + lost + gained + neither
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    cross = both * neither - lost * gained
    cross_corrected = max(0.0, cross - n / 2) if cross > 0 else float(cross)
    correlation = cross_corrected / math.sqrt(margins) if margins else 0.0
    return _combine(both + lost, n, both + gained, n, correlation=correlation)


def _combine(correct_a: int, n_a: int, correct_b: int, n_b: int, *, correlation: float) -> tuple[float, float]:
    if n_a == 0 or n_b == 0:
        return (-1.0, 1.0)
    a, b = correct_a / n_a, correct_b / n_b
    (low_a, high_a), (low_b, high_b) = wilson_interval(correct_a, n_a), wilson_interval(correct_b, n_b)

    def half_width(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))

    return (b - a - half_width(b - low_b, high_a - a), b - a + half_width(high_b - b, a - low_a))


@dataclass(frozen=True, eq=False)
class Resampled:
    """Counts of each level in the two sets of samples: observed (K,), and in each of R resamples (R, K)."""

    reference: Counts
    candidate: Counts
    references: Counts
    candidates: Counts

    def difference(self, scores: Values) -> Values:
        """Mean of ``scores`` (K,) over the candidate's samples minus the reference's, in each resample (R,)."""
        return _mean(self.candidates, scores) - _mean(self.references, scores)

    def estimate(self, scores: Values) -> dict[str, Any]:
        """Both observed means of ``scores`` (K,), their difference and its 95 % percentile interval."""
        before, after = (float(_mean(counts, scores)) for counts in (self.reference, self.candidate))
        low, high = percentile_interval(self.difference(scores))
        return {"reference": before, "candidate": after, "difference": after - before, "low": low, "high": high}


def _mean(counts: Counts, scores: Values) -> Values:
    return np.asarray(counts @ scores / counts.sum(axis=-1))


def resample_paired(reference: Counts, candidate: Counts, *, levels: int, seed: int) -> Resampled:
    """Paired bootstrap: samples drawn with replacement, each with both of its levels (N,), 0 ≤ level < ``levels``.

    The statistics depend on level counts only, so the (K, K) table of joint levels is drawn from its multinomial: the
    same distribution as drawing the samples one by one, at a cost that does not grow with N.
    Reference: Efron & Tibshirani 1993, *An introduction to the bootstrap*, chapter 8.
    """
    joint = np.bincount(reference * levels + candidate, minlength=levels * levels)
    cells = joint.nonzero()[0]
    draws = _draw(joint[cells], np.random.default_rng(seed))
    rows, columns = (np.zeros((len(draws), levels), dtype=np.int64) for _ in range(2))
    for index, cell in enumerate(cells):
        rows[:, cell // levels] += draws[:, index]
        columns[:, cell % levels] += draws[:, index]
    return Resampled(np.bincount(reference, minlength=levels), np.bincount(candidate, minlength=levels), rows, columns)


def resample_independent(reference: Counts, candidate: Counts, *, seed: int) -> Resampled:
    """Unpaired bootstrap: the two sets are drawn independently; both are given as counts of levels (K,)."""
    random = np.random.default_rng(seed)
    return Resampled(reference, candidate, _draw(reference, random), _draw(candidate, random))


def _draw(counts: Counts, random: np.random.Generator) -> Counts:
    total = int(counts.sum())
    return np.asarray(random.multinomial(total, counts / total, size=RESAMPLES))


def percentile_interval(draws: Values) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of the resampled differences (R,)."""
    return (float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975)))


def p_of_zero(draws: Values) -> float:
    """Two-sided p of "no difference": p = min(1, 2·(1 + min(#{d ≤ 0}, #{d ≥ 0}))/(R + 1)) over R resamples.

    It is the level of the percentile interval that just meets zero, and never below 2/(R + 1).
    """
    least = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (1 + least) / (len(draws) + 1))
