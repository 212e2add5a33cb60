"""Intervals that hold for all classes at once: against statsmodels, and their error rate in a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from assay.comparison.statistics import simultaneous_bounds


def test_one_proportion_has_the_interval_of_statsmodels() -> None:
    for correct, n in ((0, 7), (3, 7), (7, 7), (180, 200)):
        (found,) = simultaneous_bounds([correct], [n])
        assert found == pytest.approx(proportion_confint(correct, n, alpha=0.05, method="beta"), abs=1e-12)


def test_many_have_that_at_the_level_of_sidak() -> None:
    correct, n = [0, 20, 49, 50], [50] * 4
    alpha = 1 - 0.95 ** (1 / 4)
    expected = [proportion_confint(each, 50, alpha=alpha, method="beta") for each in correct]
    for found, interval in zip(simultaneous_bounds(correct, n), expected, strict=True):
        assert found == pytest.approx(interval, abs=1e-12)


def test_no_proportion_has_no_interval() -> None:
    assert simultaneous_bounds([], []) == []


@pytest.mark.parametrize(("classes", "n"), [(10, 100), (100, 20), (1000, 50)])
def test_the_worst_class_is_covered_although_it_was_picked(classes: int, n: int) -> None:
    rng = np.random.default_rng(classes)
    runs, truth = 1_000, np.clip(rng.normal(0.76, 0.15, classes), 0.02, 0.99)
    observed = rng.binomial(n, truth, size=(runs, classes))
    bounds = np.array(simultaneous_bounds(list(range(n + 1)), [n] * (n + 1), level=0.95 ** ((n + 1) / classes)))
    low, high = bounds[observed, 0], bounds[observed, 1]
    holds = (low <= truth) & (truth <= high)
    worst = observed.argmin(axis=1)
    assert holds[np.arange(runs), worst].mean() >= 0.95
    assert holds.all(axis=1).mean() >= 0.95 - 3 * (0.95 * 0.05 / runs) ** 0.5
    alone = np.array([proportion_confint(each, n, method="wilson") for each in range(n + 1)])
    missed = (truth > alone[observed, 1])[np.arange(runs), worst].mean()
    assert missed > 0.05  # of 0.025: what the interval of one class alone does to a class that was picked
