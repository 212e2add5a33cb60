"""Learning-rate schedules against torch's own and against their closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.training import schedule
from assay.training.sections import (
    ConstantSchedule,
    DecaySchedule,
    MultistepSchedule,
    ScheduleOptions,
    TriangularSchedule,
)


def test_cosine_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.1)
    for step in range(20):
        assert schedule.cosine(step, total=20, final=0.1) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_multistep_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[4, 7], gamma=0.1)
    for step in range(10):
        ours = schedule.multistep(step, total=10, milestones=(0.4, 0.7))
        assert ours == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_triangle_by_hand() -> None:
    values = [schedule.triangular(step, total=10, peak=0.2, start=0.5, final=0.0) for step in range(10)]
    assert values == pytest.approx([0.5, 0.75, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_linear_by_hand_with_warm_up() -> None:
    values = [schedule.linear(step, total=6, warmup=2) for step in range(6)]
    assert values == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4])


@given(total=st.integers(1, 1000), share=st.floats(0, 0.99), final=st.floats(0, 1), data=st.data())
def test_every_schedule_stays_between_nothing_and_its_peak(
    total: int, share: float, final: float, data: st.DataObject
) -> None:
    step, warmup = data.draw(st.integers(0, total - 1)), int(share * total)
    values = [
        schedule.constant(step, warmup=warmup),
        schedule.cosine(step, total=total, warmup=warmup, final=final),
        schedule.linear(step, total=total, warmup=warmup, final=final),
        schedule.triangular(step, total=total, peak=max(share, 0.01), final=final),
        schedule.multistep(step, total=total, milestones=(share,), warmup=warmup),
    ]
    assert all(0 <= value <= 1 for value in values)
    assert max(values) > 0


@pytest.mark.parametrize(
    ("follow", "after"),
    [
        (lambda step: schedule.constant(step, warmup=2), [1, 1, 1, 1]),
        (lambda step: schedule.cosine(step, total=6, warmup=2, final=0.5), [1, 0.75 + 2**-2.5, 0.75, 0.75 - 2**-2.5]),
        (lambda step: schedule.linear(step, total=6, warmup=2, final=0.5), [1, 7 / 8, 6 / 8, 5 / 8]),
        (lambda step: schedule.multistep(step, total=6, milestones=(2 / 3,), warmup=2), [1, 1, 0.1, 0.1]),
    ],
    ids=["constant", "cosine", "linear", "multistep"],
)
def test_a_warm_up_rises_to_the_schedule_proper(follow: schedule.Schedule, after: list[float]) -> None:
    assert [follow(step) for step in range(6)] == pytest.approx([1 / 3, 2 / 3, *after])


def test_progress_stays_within_the_run() -> None:
    assert [schedule.progress(step, total=3, warmup=1) for step in range(6)] == [0, 0, 0.5, 1, 1, 1]
    assert schedule.progress(7, total=7, warmup=7) == 0
    assert schedule.progress(1, total=1) == 1


def test_a_triangle_beyond_its_end_stays_there() -> None:
    assert schedule.triangular(12, total=10, final=0.25) == 0.25
    assert schedule.triangular(10, total=10, peak=1.0, start=0.5, final=0.25) == 1
    assert schedule.triangular(2, total=10, peak=0.2, start=0.5) == 1


NAMED: dict[str, tuple[ScheduleOptions, schedule.Schedule]] = {
    "constant": (ConstantSchedule(warmup=0.2), lambda step: schedule.constant(step, warmup=2)),
    "cosine": (
        DecaySchedule(name="cosine", warmup=0.2, final=0.3),
        lambda step: schedule.cosine(step, total=10, warmup=2, final=0.3),
    ),
    "linear": (
        DecaySchedule(name="linear", warmup=0.2, final=0.3),
        lambda step: schedule.linear(step, total=10, warmup=2, final=0.3),
    ),
    "triangular": (
        TriangularSchedule(peak=0.4, start=0.1, final=0.3),
        lambda step: schedule.triangular(step, total=10, peak=0.4, start=0.1, final=0.3),
    ),
    "multistep": (
        MultistepSchedule(warmup=0.2, milestones=(0.6,), gamma=0.5),
        lambda step: schedule.multistep(step, total=10, milestones=(0.6,), gamma=0.5, warmup=2),
    ),
}


@pytest.mark.parametrize(("options", "expected"), NAMED.values(), ids=NAMED.keys())
def test_a_recipe_gets_the_schedule_that_it_names(options: ScheduleOptions, expected: schedule.Schedule) -> None:
    built = schedule.build_schedule(options, steps=10)
    assert [built(step) for step in range(10)] == [expected(step) for step in range(10)]
