"""Stopping early: a sample for lack of progress, an attack for lack of successes."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import engine
from assay.attacks.early_stopping import EarlyStoppingByProgress, EarlyStoppingByYield
from assay.attacks.methods.ensembles import AdaptiveAttack, StandardAttack


def watch(margins: list[float], steps: int = 10) -> list[bool]:
    """Whether :class:`EarlyStoppingByProgress` stops one sample after each step of a search with these margins."""
    rule = EarlyStoppingByProgress.start(torch.zeros(3), steps=steps)
    index = torch.tensor([1])
    return [
        bool(rule.should_stop(index, torch.tensor([step]), torch.tensor([value]))) for step, value in enumerate(margins)
    ]


def test_a_sample_that_gains_too_little_stops_after_the_second_window():
    # A gain of 3 in the first window; 0.05 of it is 0.15, at which 8 windows gain 1.2, and 2 are missing.
    assert watch([-5.0, -2.0, -2.0]) == [False, False, True]
    assert watch([-5.0, -1.2, -1.2]) == [False, False, False]  # 8 · 0.19 > 1.2
    assert watch([-5.0, -3.0, -2.7]) == [False, False, True]  # 8 · 0.3 < 2.7
    assert watch([-5.0, -3.0, -2.6]) == [False, False, False]  # 8 · 0.4 > 2.6


def test_the_best_margin_counts_and_one_beyond_the_boundary_never_stops():
    assert watch([-5.0, -1.2, -4.0]) == [False, False, False]
    assert not any(watch([0.1, 0.1, 0.1, 0.1]))


def test_rows_are_watched_at_the_ends_of_windows_only_and_apart_from_each_other():
    rule = EarlyStoppingByProgress.start(torch.zeros(3), steps=40)
    index, margins = torch.tensor([2, 0]), torch.tensor([-9.0, -1.0])
    stops = [rule.should_stop(index, torch.full((2,), step), margins).tolist() for step in range(13)]
    # Neither gains anything, so both stop when the second window ends, and when the third does.
    assert [step for step, both in enumerate(stops) if any(both)] == [8, 12]
    assert rule.first.tolist() == [-1.0, -torch.inf, -9.0]


def test_stopping_early_saves_most_of_the_cost_and_loses_hardly_any_success(conv_net, small_set, monkeypatch):
    images, labels = small_set.images.float() / 255, small_set.labels
    options = AdaptiveAttack(steps=20, queries=100, short_queries=50, tolerance=0.05)
    quick = engine.attack(conv_net, images, labels, attack=options, epsilon=0.02)
    whole = engine.attack(conv_net, images, labels, attack=StandardAttack(steps=20, queries=100), epsilon=0.02)
    monkeypatch.setattr(
        EarlyStoppingByProgress,
        "should_stop",
        lambda self, index, step, margins: torch.zeros_like(index, dtype=torch.bool),
    )
    exhaustive = engine.attack(conv_net, images, labels, attack=options, epsilon=0.02)
    assert 5 < int(whole.broken.sum()) < 40
    assert int((whole.broken & ~quick.broken).sum()) <= 1
    assert quick.counts.forwards < 0.7 * exhaustive.counts.forwards
    assert quick.counts.forwards < 0.5 * whole.counts.forwards


def test_the_success_rate_is_bounded_as_by_the_binomial_distribution():
    rule = EarlyStoppingByYield(0.01, n=1000)
    assert not rule.should_stop(11)  # no attempt yet: every one of them may break
    rule.update(attempts=100, broken=3)
    assert rule.failures == 0
    rule.update(attempts=150, broken=0)
    rule.update(attempts=149, broken=0)
    assert rule.failures == 299
    # The largest p for which 299 failures in a row still have probability 5 %.
    assert (1 - rule.success_rate_bound()) ** 299 == pytest.approx(0.05)
    assert rule.should_stop(1000)
    assert not rule.should_stop(1010)


def test_a_small_set_is_given_up_after_three_rounds_without_success():
    rule = EarlyStoppingByYield(0.002, n=40)  # 0.08 samples
    rule.update(attempts=53, broken=0)
    assert not rule.should_stop(18)
    rule.update(attempts=1, broken=0)
    assert rule.should_stop(18)
    assert not rule.should_stop(19)
    assert not EarlyStoppingByYield(0.002, n=40).should_stop(1)  # a single one is attacked as well
    # Where the tolerance is a sample or more, it ends earlier.
    assert EarlyStoppingByYield(0.002, n=1000, failures=2 * 330).should_stop(330)
