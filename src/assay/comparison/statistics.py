"""Holm's correction, tests by exchanged and by resampled samples, the test of equivalence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.records.accuracy import Z_95

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


@dataclass(frozen=True, eq=False)
class Exchanged:
    """Levels of the same samples (N,) in two checks, and what they would be were the two exchanged at random.

    ``excess`` (K, K) counts the samples of level i in the reference and j in the candidate less those of j and i;
    ``draws`` (R, K, K) are its values where each sample that differs is exchanged with probability one half, and
    ``differing`` (K, K) counts those samples; all three above the diagonal.
    """

    reference: Counts
    candidate: Counts
    excess: Counts
    draws: Counts
    differing: Counts

    def estimate(self, scores: Values) -> dict[str, Any]:
        """Both means of ``scores`` (K,), their difference and its 95 % interval, of the width of exchanged samples."""
        before, after = (float(_mean(counts, scores)) for counts in (self.reference, self.candidate))
        half = Z_95 * float(self._spread(scores))
        difference = after - before
        return {
            "reference": before,
            "candidate": after,
            "difference": difference,
            "low": max(-1.0, difference - half),
            "high": min(1.0, difference + half),
        }

    def p(self, scores: Values) -> float:
        """Two-sided p of "no difference": how often exchanged samples differ as much, and never below 1/(R + 1)."""
        observed, drawn = self._sums(self.excess, scores), self._sums(self.draws, scores)
        as_far = int((abs(drawn) >= abs(observed) - 1e-9).sum())
        return min(1.0, (1 + as_far) / (len(self.draws) + 1))

    def band(self, thresholds: int) -> list[tuple[float, float]]:
        """A 95 % band of the differences of the shares of samples above each level, all of them together.

        Its half-width is that multiple of each standard deviation which the largest of the exchanged differences
        exceeds in 5 % of the draws (max-T): of two checks without a difference it leaves out zero anywhere in 5 %.
        """
        levels = np.arange(len(self.reference))
        above = [(levels > place).astype(float) for place in range(thresholds)]
        spreads = np.array([self._spread(scores) for scores in above])
        n = self.reference.sum()
        drawn = np.array([self._sums(self.draws, scores) for scores in above]) / n
        ratios = abs(drawn) / np.where(spreads > 0, spreads, np.inf)[:, None]
        multiple = max(Z_95, float(np.quantile(ratios.max(axis=0), 0.95, method="higher")))
        observed = np.array([float(self._sums(self.excess, scores)) for scores in above]) / n
        return [
            (max(-1.0, float(d - multiple * s)), min(1.0, float(d + multiple * s)))
            for d, s in zip(observed, spreads, strict=True)
        ]

    def _sums(self, excess: Counts, scores: Values) -> Values:
        change = np.triu(scores[None, :] - scores[:, None], 1)
        return np.asarray((excess * change).sum(axis=(-2, -1)))

    def _spread(self, scores: Values) -> Values:
        """The standard deviation of the mean difference of exchanged samples."""
        squared = (scores[None, :] - scores[:, None]) ** 2
        return np.asarray(np.sqrt((self.differing * squared).sum()) / self.reference.sum())


def exchange_pairs(reference: Counts, candidate: Counts, *, levels: int, seed: int) -> Exchanged:
    """Exchange the two levels of each sample (N,), 0 ≤ level < ``levels``, at random: a test of signs, of scores.

    Where nothing but the seed of an attack differs, each sample might as well have had its two levels the other way
    round, so that the test holds its level exactly, for few samples that differ as well. For two levels it is
    McNemar's test. Of the samples that differ in one pair of levels a binomial number is exchanged.
    Reference: Good 2005, *Permutation, parametric and bootstrap tests of hypotheses*, chapter 3; Westfall & Young 1993,
    *Resampling-based multiple testing*, for the largest of several.
    """
    joint = np.bincount(reference * levels + candidate, minlength=levels * levels).reshape(levels, levels)
    differing = np.triu(joint + joint.T, 1)
    random = np.random.default_rng(seed)
    draws = 2 * random.binomial(differing, 0.5, size=(RESAMPLES, levels, levels)) - differing
    return Exchanged(
        np.bincount(reference, minlength=levels),
        np.bincount(candidate, minlength=levels),
        np.triu(joint - joint.T, 1),
        draws,
        differing,
    )


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


_NUISANCE = 160  # values of the unknown probability over which the largest is sought
_TRIED, _MOST = 50_000, 10_000_000  # samples of which it is tried out, and stated at all
_TAIL = 8.0  # standard deviations beyond which outcomes are left out of a sum, and counted as if all were in it


def score_statistic(lost: Any, gained: Any, n: int, *, margin: float) -> Values:
    """Tango's score statistic of "the accuracy falls by ``margin`` or more", elementwise: large where it does not.

    z = (gained − lost + n·Δ) / √(n·(2p + Δ·(1 − Δ))), p the most likely probability to gain of a model that loses with
    probability p + Δ: the larger root of 2n·p² − [(gained + lost)·(1 − Δ) − 2Δ·(n − lost)]·p − gained·Δ·(1 − Δ) = 0.
    Reference: Tango 1998, *Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design*, Statistics in Medicine 17, 891–908.
    """
    lost, gained = np.asarray(lost, dtype=np.float64), np.asarray(gained, dtype=np.float64)
    linear = (gained + lost) * (1 - margin) - 2 * margin * (n - lost)
    p = (linear + np.sqrt(linear**2 + 8 * n * gained * margin * (1 - margin))) / (4 * n)
    return np.asarray((gained - lost + n * margin) / np.sqrt(n * (2 * p + margin * (1 - margin))))


def p_of_fall(lost: int, gained: int, n: int, *, margin: float) -> float:
    """Exact one-sided p-value of "the accuracy falls by ``margin`` (0 < Δ < 1) or more", of n paired samples.

    ``lost`` were right before only, ``gained`` after only. It is the largest probability, over all models that lose
    exactly Δ, of an outcome whose :func:`score_statistic` is at least the observed one: a model that is worse by Δ or
    more is passed with at most the stated probability, also where hardly a sample changed and the normal approximation
    of that statistic passes too many. For the other direction exchange ``lost`` and ``gained``.
    Reference: Hsueh, Liu & Chen 2001, *Unconditional exact tests for equivalence or noninferiority for paired binary
    endpoints*, Biometrics 57, 478–483.
    """
    observed = float(score_statistic(lost, gained, n, margin=margin)) - 1e-9
    most = (1 - margin) / 2
    gains = np.linspace(0, 1, _NUISANCE) ** 2 * most  # closer together near 0, where the probability changes fastest
    coarse = _passing(observed, gains, n, margin=margin)
    best = int(coarse.argmax())
    between = np.linspace(gains[max(0, best - 1)], gains[min(_NUISANCE - 1, best + 1)], 21)
    fine = _passing(observed, between, n, margin=margin)
    return min(1.0, float(max(coarse.max(), fine.max())))


def _passing(observed: float, gains: Values, n: int, *, margin: float) -> Values:
    """The probability of a statistic of at least ``observed``, of models (M,) that gain with these probabilities."""
    from scipy.stats import binom

    losses = gains + margin
    spread = _TAIL * np.sqrt(n * losses * (1 - losses)) + _TAIL
    first = np.maximum(0, np.floor(n * losses - spread)).astype(np.int64)
    last = np.minimum(n, np.ceil(n * losses + spread)).astype(np.int64)
    counts = first[:, None] + np.arange(int((last - first).max()) + 1)
    inside_range = counts <= last[:, None]
    counts = np.minimum(counts, last[:, None])
    least = _least_gained(observed, counts, n, margin=margin)
    share = np.clip(gains / np.maximum(1 - losses, 1e-300), 0.0, 1.0)  # to gain, of a sample that is not lost
    inside = binom.pmf(counts, n, losses[:, None]) * binom.sf(least - 1, n - counts, share[:, None])
    outside = binom.cdf(first - 1, n, losses) + binom.sf(last, n, losses)
    return np.asarray((inside * inside_range).sum(axis=1) + outside)


def _least_gained(observed: float, lost: Counts, n: int, *, margin: float) -> Counts:
    """The least number of gained samples beside each of ``lost`` with a statistic of at least ``observed``."""
    values, places = np.unique(lost, return_inverse=True)
    low, high = np.zeros_like(values), n - values + 1  # the statistic rises with what is gained; n − lost + 1: never
    while bool((low < high).any()):
        middle = (low + high) // 2
        passes = score_statistic(values, middle, n, margin=margin) >= observed
        high, low = (
            np.where((low < high) & passes, middle, high),
            np.where((low < high) & ~passes, middle + 1, low),
        )
    return np.asarray(low[places].reshape(lost.shape))


def images_to_settle(lost: int, gained: int, n: int, *, margin: float, level: float) -> int | None:
    """About how many samples decide it four times in five, if as many are lost and gained as among these ``n``.

    Inside the margin: so many that :func:`p_of_fall` is below ``level``, also with a difference that is larger than the
    observed one, as one time in ten on either side. Outside: so many that McNemar's test finds a difference, by the
    normal approximation. None beyond ten million.
    """
    from scipy.stats import norm

    most, fewest = max(lost, gained) / n, min(lost, gained) / n
    difference = most - fewest
    variance = max(0.0, most + fewest - difference**2)
    room = margin - difference
    if room <= 1e-9:
        enough = float(norm.isf(level / 2) + norm.isf(0.2)) ** 2 * variance / difference**2
        return _at_most(max(n + 1, math.ceil(enough)))
    z = float(norm.isf(0.1))
    least = math.log(level) / math.log1p(-margin)
    enough = max(n + 1, least, (float(norm.isf(level)) + z) ** 2 * variance / room**2)
    while enough < _TRIED:  # beyond it the normal approximation is as good
        size = math.ceil(enough)
        shift = z * math.sqrt(size * variance) / 2
        if p_of_fall(math.ceil(most * size + shift), max(0, int(fewest * size - shift)), size, margin=margin) < level:
            break
        enough *= 1.1
    return _at_most(math.ceil(min(enough, 10 * _MOST)))


def _at_most(count: int) -> int | None:
    return count if count <= _MOST else None


def simultaneous_bounds(correct: Sequence[int], n: Sequence[int], *, level: float = 0.95) -> list[tuple[float, float]]:
    """Intervals of K proportions on different samples which all hold at once, with a probability of at least ``level``.

    Whichever of the K is picked by what was observed, the lowest say, its interval holds too. Each is exact (Clopper &
    Pearson 1934) at Šidák's level level^(1/K). Reference: Šidák 1967, *Rectangular confidence regions for the means of
    multivariate normal distributions*, JASA 62.
    """
    from scipy.special import betaincinv

    if not len(n):
        return []
    right, all_ = np.asarray(correct, dtype=np.float64), np.asarray(n, dtype=np.float64)
    tail = -math.expm1(math.log(level) / len(all_)) / 2
    none, every = right == 0, right == all_
    low = np.where(none, 0.0, betaincinv(np.where(none, 1.0, right), all_ - right + 1, tail))
    high = np.where(every, 1.0, betaincinv(right + 1, np.where(every, 1.0, all_ - right), 1 - tail))
    return list(zip(low.tolist(), high.tolist(), strict=True))
