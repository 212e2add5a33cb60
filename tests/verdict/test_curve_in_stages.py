"""The rule on the ε that breaks half, on few samples first: how often looking early changes what it says."""

from __future__ import annotations

import numpy as np
import pytest

from assay.records.attack import EpsilonCurve, EpsilonPoint
from assay.verdict.catalogue import find_rule
from assay.verdict.robustness import curve_is_open
from assay.verdict.rule import SIDE, Evidence

RUNS, N, FIRST = 1000, 1024, 256
NOISE = 3 * (SIDE * (1 - SIDE) / RUNS) ** 0.5


def curve_of(clean: int, at_half: int, at_limit: int, n: int) -> EpsilonCurve:
    counts = ((0.0, clean), (1 / 255, at_half), (2 / 255, at_limit), (4 / 255, 0))
    points = tuple(EpsilonPoint.of(count, n, epsilon=epsilon) for epsilon, count in counts)
    return EpsilonCurve(attack="pgd", norm="linf", steps=10, points=points, median_epsilon=None, seconds=0.0)


def in_stages(right: np.ndarray) -> EpsilonCurve:
    """``right`` (N, 3): untouched, at 1/255 and at 2/255."""
    n = FIRST
    while (curve := curve_of(*right[:n].sum(axis=0).tolist(), n)) and n < N and curve_is_open(curve):
        n *= 2
    return curve


def draw(random: np.random.Generator, at_half: float, at_limit: float) -> np.ndarray:
    clean, strength = random.random(N) < 0.9, random.random(N)
    return np.stack([clean, clean & (strength < at_half), clean & (strength < at_limit)], axis=1)


def status(curve: EpsilonCurve) -> str:
    return find_rule("A203").verdict(Evidence((curve,))).status


@pytest.mark.parametrize(
    ("at_half", "at_limit", "wrong"),
    [(0.9, 0.5, {"pass", "warn", "error"}), (0.5, 0.1, {"error"})],
)
def test_on_a_threshold_a_status_is_wrong_no_more_often_than_of_all_samples(at_half, at_limit, wrong):
    random = np.random.default_rng(4)
    statuses = [status(in_stages(draw(random, at_half, at_limit))) for _ in range(RUNS)]
    for side in wrong - {"error"} or wrong:
        assert statuses.count(side) / RUNS <= SIDE + NOISE, side
    if at_limit == 0.5:
        assert (statuses.count("warn") + statuses.count("error")) / RUNS <= SIDE + NOISE


@pytest.mark.parametrize(("at_half", "at_limit"), [(0.3, 0.05), (0.95, 0.8), (0.8, 0.2)])
def test_away_from_the_thresholds_the_first_samples_are_enough(at_half, at_limit):
    random = np.random.default_rng(5)
    for _ in range(50):
        right = draw(random, at_half, at_limit)
        few, every = in_stages(right), curve_of(*right.sum(axis=0).tolist(), N)
        assert few.points[0].n == FIRST
        assert status(few) == status(every)
