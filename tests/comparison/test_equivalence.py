"""The test of equivalence against counting every outcome, its error rates by simulation, and the verdicts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, multinomial, norm

from assay.comparison.differences import paired_difference
from assay.comparison.equivalence import judge_equivalence
from assay.comparison.statistics import images_to_settle, p_of_fall, score_statistic
from assay.intervals import share_bounds
from assay.records.comparison import Difference

OUTCOMES = [(lost, gained, n) for n in (1, 4, 12) for lost, gained in product(range(n + 1), repeat=2)
            if lost + gained <= n]  # fmt: skip


@pytest.mark.parametrize("margin", [0.05, 0.3])
def test_the_statistic_uses_the_most_likely_model_that_loses_the_margin(margin: float) -> None:
    for lost, gained, n in OUTCOMES:
        stay = n - lost - gained

        def deviance(gain: float, counts: tuple[int, ...] = (gained, lost, stay)) -> float:
            shares = np.clip([gain, gain + margin, 1 - 2 * gain - margin], 1e-300, None)
            return float(-(np.array(counts) * np.log(shares)).sum())

        best = minimize_scalar(deviance, bounds=(0, (1 - margin) / 2), method="bounded", options={"xatol": 1e-10}).x
        expected = (gained - lost + n * margin) / np.sqrt(n * (2 * best + margin * (1 - margin)))
        assert score_statistic(lost, gained, n, margin=margin) == pytest.approx(expected, abs=1e-4)


def passing(lost: int, gained: int, n: int, *, margin: float, gain: float) -> float:
    """The probability of an outcome at least as far from a fall, every one of them counted."""
    observed = score_statistic(lost, gained, n, margin=margin) - 1e-9
    return sum(
        multinomial.pmf([a, b, n - a - b], n, [gain + margin, gain, 1 - 2 * gain - margin])
        for a, b in product(range(n + 1), repeat=2)
        if a + b <= n and score_statistic(a, b, n, margin=margin) >= observed
    )


@pytest.mark.parametrize(("lost", "gained", "n", "margin"), [(0, 0, 9, 0.2), (1, 2, 12, 0.1), (3, 0, 10, 0.3)])
def test_the_p_value_is_the_largest_probability_of_such_an_outcome(
    lost: int, gained: int, n: int, margin: float
) -> None:
    largest = max(passing(lost, gained, n, margin=margin, gain=g) for g in np.linspace(0, (1 - margin) / 2, 400))
    assert p_of_fall(lost, gained, n, margin=margin) == pytest.approx(largest, abs=2e-4)
    assert p_of_fall(lost, gained, n, margin=margin) >= largest - 1e-6


def test_without_a_change_it_is_the_chance_to_lose_nothing() -> None:
    assert p_of_fall(0, 0, 298, margin=0.01) == pytest.approx(0.99**298)
    assert p_of_fall(0, 0, 298, margin=0.01) > 0.05 > p_of_fall(0, 0, 299, margin=0.01)
    # where the normal approximation of the score test passes a model that is worse by the margin too often
    assert score_statistic(0, 0, 270, margin=0.01) > 1.645


def test_the_statistic_rises_with_what_is_gained_and_falls_with_what_is_lost() -> None:
    lost, gained = np.meshgrid(np.arange(60), np.arange(60), indexing="ij")
    values = score_statistic(lost, gained, 200, margin=0.02)
    assert (np.diff(values, axis=1) > 0).all()
    assert (np.diff(values, axis=0) < 0).all()


@pytest.mark.parametrize(("changed", "n", "margin"), [(0.0, 320, 0.01), (0.02, 150, 0.05), (0.2, 100, 0.1)])
def test_a_model_that_is_worse_by_the_margin_passes_in_at_most_five_of_a_hundred(
    changed: float, n: int, margin: float
) -> None:
    draws = np.random.default_rng(0).multinomial(n, [margin + changed / 2, changed / 2, 1 - margin - changed], 4000)
    outcomes, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    passed = sum(int(t) for (a, b), t in zip(outcomes.tolist(), times, strict=True) if _same(a, b, n, margin))
    assert passed / 4000 <= 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / 4000)
    assert passed / 4000 > 0.01


@pytest.mark.parametrize("changed", [0.0, 0.004])
def test_identical_accuracies_are_shown_to_be_equal_where_the_images_are_enough(changed: float) -> None:
    draws = np.random.default_rng(1).multinomial(1500, [changed / 2, changed / 2, 1 - changed], 200)
    outcomes, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    assert sum(int(t) for (a, b), t in zip(outcomes.tolist(), times, strict=True) if _same(a, b, 1500, 0.01)) >= 190


def _same(lost: int, gained: int, n: int, margin: float) -> bool:
    return max(p_of_fall(lost, gained, n, margin=margin), p_of_fall(gained, lost, n, margin=margin)) < 0.05


def test_a_large_set_is_judged_exactly_too() -> None:
    for lost, gained in ((1_200, 750), (1_180, 720), (480, 10)):  # where it is close to the normal approximation
        z = score_statistic(lost, gained, 50_000, margin=0.01)
        assert p_of_fall(lost, gained, 50_000, margin=0.01) == pytest.approx(norm.sf(z), rel=0.2)


def test_no_number_of_images_is_stated_where_none_would_settle_it() -> None:
    assert images_to_settle(99, 0, 10_000, margin=0.0099 + 1e-6, level=0.05) is None
    assert images_to_settle(1, 0, 100, margin=0.01, level=0.05) is not None  # exactly at the margin


def test_bounds_of_a_share_are_those_of_clopper_and_pearson() -> None:
    assert share_bounds(0, 20, level=0.05) == (0.0, pytest.approx(1 - 0.05 ** (1 / 20)))
    assert share_bounds(20, 20, level=0.05) == (pytest.approx(0.05 ** (1 / 20)), 1.0)
    low, high = share_bounds(7, 20, level=0.05)
    assert low == pytest.approx(beta.ppf(0.05, 7, 14))
    assert high == pytest.approx(beta.ppf(0.95, 8, 13))


@pytest.mark.parametrize(("lost", "gained"), [(1, 1), (3, 2), (4, 1)])
def test_the_stated_number_of_images_settles_it_mostly(lost: int, gained: int) -> None:
    margin, few = 0.05, 100
    n = images_to_settle(lost, gained, few, margin=margin, level=0.05)
    assert n is not None and n > few
    rates = [lost / few, gained / few, 1 - (lost + gained) / few]
    draws = np.random.default_rng(2).multinomial(n, rates, 200)
    outcomes, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    settled = sum(int(t) for (a, b), t in zip(outcomes.tolist(), times, strict=True) if _same(a, b, n, margin))
    assert settled / 200 >= 0.7


def test_outside_the_margin_it_is_the_number_that_shows_a_difference() -> None:
    n = images_to_settle(8, 1, 100, margin=0.01, level=0.05)
    assert n is not None
    draws = np.random.default_rng(3).multinomial(n, [0.08, 0.01, 0.91], 300)
    found = sum(paired(int(a), int(b), n).p < 0.05 for a, b, _ in draws)
    assert 100 < n < 400
    assert found / 300 >= 0.7


def paired(lost: int, gained: int, n: int, *, right: int | None = None) -> Difference:
    both = (n - lost - gained) if right is None else right
    before = np.arange(n) < both + lost
    after = np.r_[np.ones(both, bool), np.zeros(lost, bool), np.ones(gained, bool), np.zeros(n, bool)][:n]
    return paired_difference("accuracy", before, after)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "unchanged", "verdict", "because"),
    [
        (0, 0, 1000, 1000, "same", ""),
        (0, 0, 100, 100, "cannot tell", "accuracy"),  # no difference found, and none excluded
        (0, 0, 1, 1, "cannot tell", "accuracy"),
        (4, 3, 3000, 2990, "same", ""),
        (20, 2, 400, 378, "different", "accuracy"),
        (9, 0, 1000, 990, "different", "accuracy"),  # below the margin, and not shown to be
        (30, 5, 20_000, 19_900, "same", ""),  # a difference beyond noise, far within the margin
        (0, 0, 1000, 100, "different", "predictions"),  # equally wrong, by other predictions
        (0, 0, 1000, 955, "cannot tell", "predictions"),
    ],
)
def test_the_verdicts(lost: int, gained: int, n: int, unchanged: int, verdict: str, because: str) -> None:
    ((_, judged),) = judge_equivalence([paired(lost, gained, n)], [unchanged])
    assert (judged.verdict, judged.because) == (verdict, because)
    assert (judged.needed is not None) is (verdict == "cannot tell")
    assert judged.needed is None or judged.needed > n


def test_two_swapped_coins_are_not_the_same_model() -> None:
    ((_, judged),) = judge_equivalence([paired(500, 500, 10_000, right=4500)], [9_000], margin=0.05)
    assert judged.adjusted < 0.05  # the accuracies are equal within the margin
    assert judged.verdict == "different"


def test_several_candidates_share_the_error_rate() -> None:
    one = paired(0, 0, 330)
    ((_, alone),) = judge_equivalence([one], [330])
    both = judge_equivalence([one, one], [330, 330])
    assert alone.verdict == "same"
    assert [judged.verdict for _, judged in both] == ["cannot tell", "cannot tell"]
    assert both[0][1].adjusted == pytest.approx(2 * alone.p)
    many = paired(0, 0, 2000)
    least = next(k for k in range(1900, 2000) if share_bounds(k, 2000, level=0.05)[0] > 0.95)
    assert judge_equivalence([many], [least])[0][1].verdict == "same"
    assert [judged.verdict for _, judged in judge_equivalence([many, many], [least, 2000])] == ["cannot tell", "same"]


def test_a_wider_margin_is_sooner_shown() -> None:
    verdicts = [judge_equivalence([paired(2, 2, 200)], [196], margin=m)[0][1].verdict for m in (0.01, 0.05)]
    assert verdicts == ["cannot tell", "same"]
