"""The bootstrap over samples, for what is no count: curves and means of several answers a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
