"""How many images each measurement gets of a wall time."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from assay.runtime.allocation import Cost, Share, allocate, measure_cost


def share(name: str, each: float, *, weight: float = 1.0, least: int = 1, most: int = 10**9) -> Share:
    return Share(name, Cost(each=each), weight, least, most)


def test_images_are_in_proportion_to_the_root_of_weight_over_cost() -> None:
    given = allocate([share("a", 1.0), share("b", 0.01), share("c", 0.04, weight=4.0)], 1300.0)
    # √(w/c) = 1, 10, 10; costs of one unit: 1 + 0.1 + 0.4
    assert given["b"] == pytest.approx(10 * given["a"], rel=0.02)
    assert given["c"] == pytest.approx(given["b"], rel=0.002)
    assert given["a"] + 0.01 * given["b"] + 0.04 * given["c"] == pytest.approx(1300, rel=0.002)


def test_no_other_division_of_the_time_has_a_smaller_weighted_variance() -> None:
    shares = [share("a", 0.7), share("b", 0.05, weight=0.3), share("c", 0.2, weight=2.0)]
    given = allocate(shares, 200.0)
    variance = sum(each.weight / given[each.name] for each in shares)
    for a in range(10, 280, 10):
        for b in range(10, 3000, 50):
            c = int((200 - 0.7 * a - 0.05 * b) / 0.2)
            if c > 0:
                assert variance <= 1 / a + 0.3 / b + 2 / c + 1e-4


def test_what_does_not_fit_is_left_out_the_longest_first_and_what_is_required_stays() -> None:
    shares = [
        share("long", 1.0, least=16),
        share("short", 0.1, least=32),
        replace(share("clean", 1.0, least=50), required=True),
    ]
    assert allocate(shares, 60.0) == {"long": 0, "short": 100, "clean": 50}
    assert allocate(shares, 5.0) == {"long": 0, "short": 0, "clean": 50}
    assert allocate(shares, 60.0, slack=5.0)["long"] == 0
    assert allocate(shares, 60.0, slack=10.0)["long"] == 16


def test_no_stage_takes_more_images_than_there_are() -> None:
    assert allocate([share("a", 0.001, most=40), share("b", 0.001, least=5, most=7)], 1e6) == {"a": 40, "b": 7}


@pytest.mark.parametrize(
    ("seconds", "trials", "each"), [(100.0, [2, 8, 32], 0.5), (11.0, [2, 8], 0.625), (0.1, [2], 1.0)]
)
def test_a_cost_is_measured_on_as_many_images_as_the_time_allows(
    monkeypatch: pytest.MonkeyPatch, seconds: float, trials: list[int], each: float
) -> None:
    now, made = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def run(n: int) -> None:
        made.append(n)
        now[0] += 1.0 + 0.5 * n

    cost = measure_cost(run, most=1000, seconds=seconds)
    assert made == trials
    assert cost.each == pytest.approx(each)
    assert measure_cost(run, most=1, seconds=100.0) == Cost(each=1.5)
