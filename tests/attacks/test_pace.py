"""Giving up on samples that a search will not bring to the boundary."""

from __future__ import annotations

import torch

from assay.attacks import engine
from assay.attacks.early_stopping import EarlyStoppingByProgress
from assay.attacks.methods.ensembles import AdaptiveAttack, StandardAttack


def watch(margins: list[float], steps: int = 10) -> list[bool]:
    """What :class:`EarlyStoppingByProgress` says of one sample after each step of a search with these margins."""
    pace = EarlyStoppingByProgress.start(torch.zeros(3), steps=steps)
    index = torch.tensor([1])
    return [
        bool(pace.should_stop(index, torch.tensor([step]), torch.tensor([value]))) for step, value in enumerate(margins)
    ]


def test_who_gains_too_little_is_given_up_after_the_first_window():
    # 3 won in the first window; 0.05 of all ground is 0.15, 8 windows left win 1.2 at that pace, 2 are missing.
    assert watch([-5.0, -2.0, -2.0]) == [False, False, True]
    assert watch([-5.0, -1.2, -1.2]) == [False, False, False]  # 8 · 0.19 > 1.2
    assert watch([-5.0, -3.0, -2.7]) == [False, False, True]  # 8 · 0.3 < 2.7
    assert watch([-5.0, -3.0, -2.6]) == [False, False, False]  # 8 · 0.4 > 2.6


def test_a_margin_that_falls_back_loses_nothing_and_one_beyond_the_boundary_is_never_hopeless():
    assert watch([-5.0, -1.2, -4.0]) == [False, False, False]
    assert not any(watch([0.1, 0.1, 0.1, 0.1]))


def test_rows_are_watched_at_the_ends_of_windows_only_and_apart_from_each_other():
    pace = EarlyStoppingByProgress.start(torch.zeros(3), steps=40)
    index, margins = torch.tensor([2, 0]), torch.tensor([-9.0, -1.0])
    said = [pace.should_stop(index, torch.full((2,), step), margins).tolist() for step in range(13)]
    # Nothing is won by either, so both are hopeless when the second window ends, and when the third does.
    assert [step for step, both in enumerate(said) if any(both)] == [8, 12]
    assert pace.first.tolist() == [-1.0, -torch.inf, -9.0]


def test_giving_up_spares_most_of_the_cost_and_hardly_any_success(conv_net, small_set, monkeypatch):
    images, labels = small_set.images.float() / 255, small_set.labels
    options = AdaptiveAttack(steps=20, queries=100, short_queries=50, tolerance=0.05)
    quick = engine.attack(conv_net, images, labels, attack=options, epsilon=0.02)
    whole = engine.attack(conv_net, images, labels, attack=StandardAttack(steps=20, queries=100), epsilon=0.02)
    monkeypatch.setattr(
        EarlyStoppingByProgress,
        "should_stop",
        lambda self, index, step, margins: torch.zeros_like(index, dtype=torch.bool),
    )
    patient = engine.attack(conv_net, images, labels, attack=options, epsilon=0.02)
    assert 5 < int(whole.broken.sum()) < 40
    assert int((whole.broken & ~quick.broken).sum()) <= 1
    assert quick.counts.forwards < 0.7 * patient.counts.forwards
    assert quick.counts.forwards < 0.5 * whole.counts.forwards
