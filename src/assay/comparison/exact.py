"""Exact two-sided tests of two proportions, and Holm's correction for asking many times."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
