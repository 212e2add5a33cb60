"""Exact two-sided tests of two proportions, and Holm's correction for asking many times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.records.accuracy import wilson_interval

_TIE = 1 + 1e-7  # tables whose probabilities differ by rounding only are equally likely


def mcnemar(lost: int, gained: int) -> float:
    """McNemar's exact test on the same samples: p of "a sample that differs is as likely to be lost as gained".

    p = min(1, 2·P[X ≤ min(lost, gained)]), X ~ Binomial(lost + gained, ½); samples on which both agree say nothing.
    Reference: McNemar 1947, *Note on the sampling error of the difference between correlated proportions*.
    """
    n, least = lost + gained, min(lost, gained)
    term = total = 1
    for k in range(1, least + 1):
        term = term * (n - k + 1) // k
        total += term
    return float(min(1.0, 2 * total / 2**n))


def fisher(right_a: int, n_a: int, right_b: int, n_b: int) -> float:
    """Fisher's exact test on different samples: p of "both are right equally often".

    The sum of the hypergeometric probabilities of all tables with the same margins that are no likelier than the one
    seen. Reference: Fisher 1922, *On the interpretation of χ² from contingency tables*.
    """
    right, n = right_a + right_b, n_a + n_b
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])

    def choose(total: int, part: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(log_factorial[total] - log_factorial[part] - log_factorial[total - part])

    seen = np.arange(max(0, right - n_b), min(right, n_a) + 1)
    logs = choose(n_a, seen) + choose(n_b, right - seen)
    probabilities = np.exp(logs - logs.max())
    own = probabilities[right_a - seen[0]]
    return float(min(1.0, probabilities[probabilities <= own * _TIE].sum() / probabilities.sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down: p₍ᵢ₎ becomes max over j ≤ i of min(1, (m − j)·p₍ⱼ₎), j from 0.

    Calling what is below α a difference is wrong for any of the m at most with probability α, whatever the
    dependence between them. Reference: Holm 1979, *A simple sequentially rejective multiple test procedure*.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def newcombe(right_a: int, n_a: int, right_b: int, n_b: int) -> tuple[float, float]:
    """95 % interval of p_b − p_a on different samples, from the two Wilson intervals (Newcombe's method 10).

    Reference: Newcombe 1998, *Interval estimation for the difference between independent proportions*, Statistics in
    Medicine 17, 873–890.
    """
    return _combine(right_a, n_a, right_b, n_b, correlation=0.0)


def newcombe_paired(both: int, lost: int, gained: int, neither: int) -> tuple[float, float]:
    """95 % interval of p_b − p_a on the same samples: Wilson intervals joined by the φ coefficient (method 10).

    ``both`` right, right in a only (``lost``), in b only (``gained``), ``neither``. φ is the correlation of the two
    answers, its numerator corrected for continuity where it is positive. Reference: Newcombe 1998, *Improved
    confidence intervals for the difference between binomial proportions based on paired data*, Statistics in
    Medicine 17, 2635–2650.
    """
    n = both + lost + gained + neither
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    cross = both * neither - lost * gained
    cross_corrected = max(0.0, cross - n / 2) if cross > 0 else float(cross)
    correlation = cross_corrected / math.sqrt(margins) if margins else 0.0
    return _combine(both + lost, n, both + gained, n, correlation=correlation)


def _combine(right_a: int, n_a: int, right_b: int, n_b: int, *, correlation: float) -> tuple[float, float]:
    if n_a == 0 or n_b == 0:
        return (-1.0, 1.0)
    a, b = right_a / n_a, right_b / n_b
    (low_a, high_a), (low_b, high_b) = wilson_interval(right_a, n_a), wilson_interval(right_b, n_b)

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))

    return (b - a - reach(b - low_b, high_a - a), b - a + reach(high_b - b, a - low_a))


RESAMPLES = 10_000
Counts = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Resampled:
    """How often each level occurs in the two sets, as seen (K,) and in each resample (R, K)."""

    reference: Counts
    candidate: Counts
    references: Counts
    candidates: Counts

    def difference(self, worth: Values) -> tuple[float, Values]:
        """Mean of ``worth`` (K,) over the candidate's samples minus the reference's: as seen, and resampled (R,)."""
        drawn = _mean(self.candidates, worth) - _mean(self.references, worth)
        return float(_mean(self.candidate, worth) - _mean(self.reference, worth)), drawn


def _mean(counts: Counts, worth: Values) -> Values:
    return np.asarray(counts @ worth / counts.sum(axis=-1))


def resample_paired(reference: Counts, candidate: Counts, *, levels: int, seed: int) -> Resampled:
    """Draw samples with replacement, each with both of its levels (N,), 0 ≤ level < ``levels``.

    A statistic of level counts does not care which samples have them, so the (K, K) table of joint levels is drawn
    from its multinomial: the same distribution as drawing the samples one by one, at a cost that does not grow with N.
    Reference: Efron & Tibshirani 1993, *An introduction to the bootstrap*, chapter 8.
    """
    joint = np.bincount(reference * levels + candidate, minlength=levels * levels)
    seen = joint.nonzero()[0]
    draws = _draw(joint[seen], np.random.default_rng(seed))
    rows, columns = (np.zeros((len(draws), levels), dtype=np.int64) for _ in range(2))
    for place, cell in enumerate(seen):
        rows[:, cell // levels] += draws[:, place]
        columns[:, cell % levels] += draws[:, place]
    return Resampled(np.bincount(reference, minlength=levels), np.bincount(candidate, minlength=levels), rows, columns)


def resample_apart(reference: Counts, candidate: Counts, *, seed: int) -> Resampled:
    """Draw the two sets independently; both are given as counts of levels (K,)."""
    random = np.random.default_rng(seed)
    return Resampled(reference, candidate, _draw(reference, random), _draw(candidate, random))


def _draw(counts: Counts, random: np.random.Generator) -> Counts:
    total = int(counts.sum())
    return np.asarray(random.multinomial(total, counts / total, size=RESAMPLES))


def percentile_interval(draws: Values) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the resampled differences."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def p_of_zero(draws: Values) -> float:
    """Two-sided p of "no difference": twice the share of resamples on the far side of zero, never below 2/(R + 1).

    p = min(1, 2·(1 + min(#{d ≤ 0}, #{d ≥ 0}))/(R + 1)): the level of the percentile interval that just meets zero.
    """
    least = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (1 + least) / (len(draws) + 1))
