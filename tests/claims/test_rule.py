"""The rule that judges claims: what it says, and how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from assay.claims.rule import SHOWN_PARTS, conclude, interval, number, weigh, weigh_sample
from assay.errors import OptionError
from assay.records.claims import ClaimEvidence, ClaimFact, ClaimSample


def sample(values, expects="increase", margin=1.0, **more):
    return ClaimSample(name="effect", unit="points", values=tuple(values), expects=expects, margin=margin, **more)


def fact(holds: bool, *, decides: bool = True) -> ClaimFact:
    return ClaimFact(name="count", expected="20 of 20", got="17 of 20", holds=holds, decides=decides)


def test_the_interval_is_that_of_scipy() -> None:
    values = [0.3, -1.2, 2.5, 0.9, 1.1]
    mean, low, high = interval(values)
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("expects", "inside", "outside"),
    [
        ("increase", 3, 0),
        ("decrease", -3, 0),
        ("same", 0, 3),
        ("same", 0, -3),
        ("no decrease", 0, -3),
        ("no increase", 0, 3),
    ],
)
def test_an_interval_inside_supports_and_one_outside_refutes(expects: str, inside: float, outside: float) -> None:
    noise = np.array([-0.1, 0.0, 0.1])
    assert weigh_sample(sample(inside + noise, expects)).outcome == "supported"
    assert weigh_sample(sample(outside + noise, expects)).outcome == "refuted"
    at_the_margin = math.copysign(1, inside + outside)
    assert weigh_sample(sample(at_the_margin + noise, expects)).outcome == "undecided"


def test_a_ratio_is_judged_by_its_logarithm() -> None:
    values = [2.0, 4.0, 8.0, 4.0]
    effect = weigh_sample(sample(values, margin=1.5, scale="ratio"))
    mean, low, high = interval(np.log(values))
    assert (effect.mean, effect.low, effect.high) == pytest.approx((4.0, math.exp(low), math.exp(high)))
    assert mean == pytest.approx(math.log(4))
    assert effect.outcome == "supported"
    assert weigh_sample(sample([1 / v for v in values], "decrease", 1.5, scale="ratio")).outcome == "supported"


@pytest.mark.parametrize("values", [(), (5.0,), (5.0, math.inf), (5.0, math.nan)], ids=str)
def test_what_has_no_interval_decides_nothing(values: tuple[float, ...]) -> None:
    effect = weigh_sample(sample(values))
    assert effect.outcome == "undecided"
    assert (effect.low, effect.high) == (-math.inf, math.inf)


def test_a_margin_that_is_none_and_a_ratio_below_zero_are_refused() -> None:
    with pytest.raises(OptionError, match="at least 0, got -1"):
        weigh_sample(sample([1, 2], margin=-1))
    with pytest.raises(OptionError, match="at least 1, got 0.5"):
        weigh_sample(sample([1, 2], margin=0.5, scale="ratio"))
    with pytest.raises(OptionError, match="ratios above 0, got 0"):
        weigh_sample(sample([1, 0], margin=1, scale="ratio"))


def judged(*parts: ClaimSample | ClaimFact) -> str:
    evidence = ClaimEvidence(
        how="so",
        samples=tuple(part for part in parts if isinstance(part, ClaimSample)),
        facts=tuple(part for part in parts if isinstance(part, ClaimFact)),
    )
    return conclude(evidence, weigh(evidence))[0]


YES, NO, PERHAPS = sample([3, 3.1, 2.9]), sample([0, 0.1, -0.1]), sample([0, 2])


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ((YES, YES), "supported"),
        ((YES, NO), "refuted"),
        ((YES, PERHAPS), "undecided"),
        ((PERHAPS, NO), "refuted"),
        ((YES, fact(True)), "supported"),
        ((YES, fact(False)), "refuted"),
        ((fact(True),), "supported"),
        ((YES, fact(False, decides=False)), "supported"),
        ((YES, NO.model_copy(update={"decides": False})), "supported"),
        ((), "undecided"),
    ],
)
def test_a_claim_is_the_conjunction_of_the_parts_that_decide(
    parts: tuple[ClaimSample | ClaimFact, ...], verdict: str
) -> None:
    assert judged(*parts) == verdict


def test_parts_that_decide_share_the_error_and_others_do_not() -> None:
    shown = YES.model_copy(update={"decides": False})
    effects = weigh(ClaimEvidence(how="so", samples=(YES, YES, shown)))
    assert [effect.confidence for effect in effects] == pytest.approx([0.975, 0.975, 0.95])


def test_the_reason_names_what_decided_and_counts_the_rest() -> None:
    parts = ClaimEvidence(how="so", samples=(YES,), facts=(fact(False),) * (SHOWN_PARTS + 3))
    verdict, because = conclude(parts, weigh(parts))
    assert verdict == "refuted"
    assert because == "count: 17 of 20, not 20 of 20; count: 17 of 20, not 20 of 20; and 3 more"


def test_numbers_have_a_true_minus_sign() -> None:
    assert [number(value) for value in (-0.412, 3.0, math.inf)] == ["−0.412", "3", "∞"]


RUNS = 8000


def verdicts(mean: float, n: int, *, expects: str, margin: float, parts: int = 1) -> dict[str, float]:
    """How often each verdict is given on ``parts`` independent samples of n normal differences."""
    draws = np.random.default_rng(7).normal(mean, 1.0, size=(RUNS, parts, n))
    counts = dict.fromkeys(("supported", "refuted", "undecided"), 0)
    for run in draws.tolist():
        counts[judged(*(sample(values, expects, margin) for values in run))] += 1
    return {name: count / RUNS for name, count in counts.items()}


def within_chance(rate: float, nominal: float) -> bool:
    return abs(rate - nominal) <= 4 * math.sqrt(nominal * (1 - nominal) / RUNS)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_at_the_margin_either_mistake_has_a_probability_of_two_and_a_half_per_cent(n: int) -> None:
    found = verdicts(0.5, n, expects="increase", margin=0.5)
    assert within_chance(found["supported"], 0.025)
    assert within_chance(found["refuted"], 0.025)


@pytest.mark.parametrize(("mean", "expects"), [(0.0, "increase"), (0.7, "same"), (-0.8, "no decrease")])
def test_false_claims_are_hardly_ever_supported(mean: float, expects: str) -> None:
    assert verdicts(mean, 5, expects=expects, margin=0.5)["supported"] < 0.025


def test_a_true_claim_of_several_parts_is_refuted_in_at_most_five_per_cent() -> None:
    found = verdicts(0.5, 5, expects="increase", margin=0.5, parts=4)
    assert 0.015 < found["refuted"] < 0.05 / 2 + 0.01  # each part at 0.05/4 on two sides, one side of which refutes
    assert found["supported"] < 0.001


def test_an_effect_that_is_there_is_found() -> None:
    assert verdicts(3.0, 5, expects="increase", margin=0.5)["supported"] > 0.9
