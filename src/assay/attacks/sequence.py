"""An interval that stays valid however often one looks at it, so that a measurement may stop when it is narrow."""

from __future__ import annotations

import math
from collections.abc import Callable


def confidence_sequence(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a proportion after ``n`` samples that covers it at every n at once, with ``confidence``.

    {p : ∫ q^s(1−q)^f dq < p^s(1−p)^f / α}, s successes and f failures, q uniform: the ratio of the mixture to the
    truth is a martingale of mean 1, so by Ville's inequality it ever exceeds 1/α with probability at most α. A Wilson
    interval is valid at one n chosen beforehand; stopping when it happens to be narrow breaks it.

    Reference: Robbins 1970, *Statistical methods related to the law of the iterated logarithm*; Howard et al. 2021.
    """
    if n == 0:
        return (0.0, 1.0)
    failures = n - successes
    log_mixture = math.lgamma(successes + 1) + math.lgamma(failures + 1) - math.lgamma(n + 2)
    limit = log_mixture + math.log(1 - confidence)

    def likelihood(p: float) -> float:
        ones = successes * math.log(p) if successes else 0.0
        return ones + (failures * math.log1p(-p) if failures else 0.0)

    peak = successes / n
    low = 0.0 if successes == 0 else _edge(likelihood, limit, outside=0.0, inside=peak)
    high = 1.0 if failures == 0 else _edge(likelihood, limit, outside=1.0, inside=peak)
    return (low, high)


def _edge(likelihood: Callable[[float], float], limit: float, *, outside: float, inside: float) -> float:
    """Where the log-likelihood crosses ``limit`` between a point outside the interval and one inside, by bisection."""
    for _ in range(60):
        middle = 0.5 * (outside + inside)
        if likelihood(middle) > limit:
            inside = middle
        else:
            outside = middle
    return outside
