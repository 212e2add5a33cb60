"""A way that cannot win is given up early, one that is better never but by a rare chance, and no gain is made up."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import binom, binomtest
from torch import Tensor

from assay.diagnostics.alternatives import FIRST, Alternative, can_win, chance_of_gain, try_alternatives

N = 1000


def simulate(*, gain: float, loss: float, seed: int, ways: int = 8) -> Alternative:
    """One way that turns these shares of pictures right and wrong, among others that change nothing."""
    draws = torch.rand(N, generator=torch.Generator().manual_seed(seed))
    before = torch.arange(N) % 10 < 7
    draws = draws * torch.where(before, 1 / 0.7, 1 / 0.3) ** -1
    after = torch.where(before, draws >= loss, draws < gain)

    def right_under(name: str, rows: Tensor) -> Tensor:
        return after[rows] if name == "it" else before[rows]

    return try_alternatives(("it", *map(str, range(ways - 1))), right_under, before=before)["it"]


def test_a_bad_way_gets_the_first_pictures_only() -> None:
    assert simulate(gain=0.0, loss=0.5, seed=0).n == FIRST


@pytest.mark.parametrize("gain", [0.05, 0.1])
def test_a_better_way_is_tried_on_all_pictures(gain: float) -> None:
    outcomes = [simulate(gain=gain, loss=0.005, seed=seed) for seed in range(40)]
    assert sum(each.n < N for each in outcomes) <= 1
    assert all(each.p_value < 0.05 for each in outcomes if each.n == N)


def test_a_way_that_is_as_good_seldom_looks_better() -> None:
    outcomes = [simulate(gain=0.03, loss=0.03, seed=seed) for seed in range(200)]
    assert sum(each.p_value < 0.05 for each in outcomes) <= 12
    assert sum(each.n < N for each in outcomes) > 60


def test_a_way_that_changes_nothing_is_given_up() -> None:
    assert simulate(gain=0.0, loss=0.0, seed=0).n < N


def test_few_pictures_are_all_tried_in_one_piece() -> None:
    before = torch.tensor([True, False, False])
    seen: list[Tensor] = []
    tried = try_alternatives(
        ["a"], lambda _, rows: (seen.append(rows), torch.ones(3, dtype=torch.bool))[1], before=before
    )
    assert (tried["a"], len(seen)) == (Alternative(correct=3, n=3, gained=2, lost=0, p_value=0.25), 1)


def test_whether_it_can_win_is_the_chance_of_a_significant_gain() -> None:
    for gained, lost, seen, tried in itertools.product((0, 1, 3, 10), (0, 2, 9), (64, 256), (1, 9)):
        if gained + lost:
            changed = gained + lost
            high = binomtest(changed, seen).proportion_ci(method="wilson").high
            rest = round(high * (N - seen))
            share = binomtest(gained, changed).proportion_ci(method="wilson").high
            total = changed + rest
            wins = (k for k in range(gained, gained + rest + 1) if binom.sf(k - 1, total, 0.5) < 0.05 / tried)
            least = next(wins, gained + rest + 1) - gained
            wanted = binom.sf(least - 1, rest, share) >= 0.01
            assert can_win(gained, lost, seen=seen, n=N, tried=tried) == wanted, (gained, lost, seen, tried)
    assert chance_of_gain(5, 2) == pytest.approx(binomtest(5, 7, alternative="greater").pvalue)
