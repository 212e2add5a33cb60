"""Tests and intervals of two proportions against exact arithmetic, statsmodels and published examples."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from assay.comparison.differences import independent_difference, paired_difference
from assay.comparison.statistics import (
    exchange_pairs,
    holm,
    p_of_zero,
    resample_independent,
)
from assay.intervals import newcombe, newcombe_paired
from assay.records.accuracy import Proportion


def mcnemar(lost: int, gained: int) -> float:
    """p of the paired test on samples of which ``lost`` and ``gained`` changed, and five did not."""
    before = np.repeat([True, False, True], [lost, gained, 5])
    after = np.repeat([False, True, True], [lost, gained, 5])
    return paired_difference("accuracy", before, after).p


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int) -> None:
    n, least = lost + gained, min(lost, gained)
    naive = min(1, 2 * Fraction(sum(math.comb(n, k) for k in range(least + 1)), 2**n))  # 2·P[X ≤ least], exactly
    assert mcnemar(lost, gained) == pytest.approx(float(naive), rel=1e-9)
    assert mcnemar(lost, gained) == pytest.approx(
        mcnemar_of_statsmodels([[5, lost], [gained, 7]], exact=True).pvalue, rel=1e-9
    )


def test_mcnemar_of_thousands_of_flips_stays_exact() -> None:
    ways = accumulate(range(1, 4_901), lambda term, k: term * (10_000 - k + 1) // k, initial=1)  # comb(10,000, k)
    naive = 2 * Fraction(sum(ways), 2**10_000)
    assert mcnemar(4_900, 5_100) == pytest.approx(float(naive), rel=1e-9)


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_fisher_is_the_sum_of_the_tables_no_likelier(n_a: int, n_b: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, n_a)), data.draw(st.integers(0, n_b))
    tables = {k: math.comb(n_a, k) * math.comb(n_b, a + b - k) for k in range(max(0, a + b - n_b), min(a + b, n_a) + 1)}
    naive = Fraction(sum(ways for ways in tables.values() if ways <= tables[a]), sum(tables.values()))
    found = independent_difference("accuracy", Proportion.of(a, n_a), Proportion.of(b, n_b))
    assert found.p == pytest.approx(float(naive), rel=1e-6, abs=1e-12)
    assert (found.test, found.paired, found.n, found.n_candidate) == ("Fisher's exact test", False, n_a, n_b)


@pytest.mark.parametrize(
    "p_values", [[0.01, 0.02, 0.03, 0.04], [0.5], [0.04, 0.001, 0.9, 0.04, 0.2, 1.0], [0.0, 1e-9, 0.6]]
)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), abs=1e-12)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_newcombes_independent_interval_is_that_of_statsmodels(n_a: int, n_b: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, n_a)), data.draw(st.integers(0, n_b))
    expected = confint_proportions_2indep(b, n_b, a, n_a, method="newcomb", compare="diff", alpha=0.05)
    assert newcombe(a, n_a, b, n_b) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((36, 14, 0, 0), 0.1528, 0.4167)],
)
def test_newcombes_paired_interval_is_the_published_one(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    found_low, found_high = newcombe_paired(*cells)  # the paper subtracts the other way round
    assert -found_high == pytest.approx(low, abs=6e-5)
    assert -found_low == pytest.approx(high, abs=6e-5)


def test_newcombes_paired_interval_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    shares = np.array([0.55, 0.08, 0.05, 0.32])
    truth = shares[2] - shares[1]
    intervals = [newcombe_paired(*map(int, random.multinomial(150, shares))) for _ in range(2_000)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.935 <= covered <= 0.98


def levels_of_two_models(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    one = random.integers(0, 5, n)
    return one, np.clip(one + random.integers(-1, 2, n) + (random.random(n) < 0.1), 0, 4)


def test_exchanging_pairs_is_the_permutation_test_of_scipy() -> None:
    one, other = levels_of_two_models(n=60)
    scores = np.array([0.0, 0.1, 0.4, 0.7, 1.0])
    drawn = exchange_pairs(one, other, levels=5, seed=0)
    assert drawn.estimate(scores)["difference"] == pytest.approx(scores[other].mean() - scores[one].mean())
    expected = stats.permutation_test(
        (scores[one], scores[other]),
        lambda a, b, axis: b.mean(axis) - a.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    )
    assert drawn.p(scores) == pytest.approx(expected.pvalue, abs=0.015)


def test_of_two_levels_it_is_mcnemars_test() -> None:
    one = np.array([1] * 14 + [0] * 5 + [1] * 20)
    other = np.array([0] * 14 + [1] * 5 + [1] * 20)
    drawn = exchange_pairs(one, other, levels=2, seed=0)
    assert drawn.p(np.array([0.0, 1.0])) == pytest.approx(stats.binomtest(5, 19).pvalue, abs=0.012)
    nothing = exchange_pairs(one, one, levels=2, seed=0)
    assert nothing.p(np.array([0.0, 1.0])) == 1.0
    assert nothing.band(2) == [(0.0, 0.0), (0.0, 0.0)]


def test_the_band_leaves_out_zero_somewhere_in_five_percent() -> None:
    random = np.random.default_rng(4)
    outside = 0
    for seed in range(200):
        one, other = random.integers(0, 5, 80), random.integers(0, 5, 80)
        outside += any(not low <= 0 <= high for low, high in exchange_pairs(one, other, levels=5, seed=seed).band(4))
    assert outside / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_the_variances_of_independent_samples_add() -> None:
    one, other = levels_of_two_models()
    scores = np.arange(5.0)
    drawn = resample_independent(np.bincount(one, minlength=5), np.bincount(other, minlength=5), seed=0)
    draws = drawn.difference(scores)
    assert draws.std() == pytest.approx(np.sqrt((one.var() + other.var()) / len(one)), rel=0.05)
    paired = exchange_pairs(one, other, levels=5, seed=0).estimate(scores)
    assert paired["high"] - paired["low"] < 0.7 * 2 * 1.96 * draws.std()


def test_the_p_of_the_bootstrap_is_never_zero_and_one_where_nothing_moves() -> None:
    assert p_of_zero(np.ones(999)) == pytest.approx(0.002)
    assert p_of_zero(np.zeros(999)) == 1.0
    random = np.random.default_rng(3)
    assert p_of_zero(random.normal(1.96, 1, 100_000)) == pytest.approx(0.05, abs=0.005)
