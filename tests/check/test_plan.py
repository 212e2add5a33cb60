"""A check that is fitted into a wall time: the allocation, the corrections, and what a run keeps of its plan."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from assay.check import BUDGETS, run_check
from assay.check.cost import DROPPED, PassTimes, measure_needed_passes
from assay.check.plan import Schedule, fit, unbounded
from assay.check.stages import STAGES, CheckContext, CheckStage
from assay.data.dataset import ImageDataset
from assay.errors import OptionError
from assay.records.accuracy import CleanAccuracy, wilson_interval
from assay.records.base import Record
from assay.records.budget import CheckPlan, half_width
from assay.records.checkup import Checkup
from assay.records.failure import FailedMeasurement


class Clock:
    """A clock that moves when it is told to, and a little whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-4
        return self.now


# Seconds of an image, and fixed, of a ResNet-20 on two cores
COSTS = {
    "normalisation audit": (0.02, 0.1),
    "clean accuracy": (0.002, 0.4),
    "attacks": (0.05, 0.7),
    "attack sanity": (0.35, 1.0),
    "accuracy against epsilon": (0.08, 0.8),
    "invariance": (0.12, 0.5),
    "preparation audit": (0.01, 0.1),
    "input gradients": (0.005, 0.1),
    "saliency maps": (0.2, 0.1),
    "gradient flow": (0.02, 0.1),
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(time, "perf_counter", fake)
    return fake


@pytest.fixture
def data() -> ImageDataset:
    images = torch.zeros(10_000, 1, 1, 1, dtype=torch.uint8)
    return ImageDataset(images, torch.arange(10_000) % 2, ("a", "b"), name="black")


def count(context: CheckContext, stage: CheckStage) -> int:
    assert stage.effort is not None
    field = stage.effort.samples
    return context.most(field)


def simulated(clock: Clock, *, wrong: Mapping[str, float]) -> tuple[CheckStage, ...]:
    """The stages of a check that only take time: that of COSTS in trials, ``wrong`` times as much an image later."""

    def simulate(stage: CheckStage) -> CheckStage:
        def measure(context: CheckContext) -> Iterator[Record]:
            each, fixed = COSTS.get(stage.name, (0.0, 0.3))
            n = 0 if stage.effort is None else count(context, stage)
            clock.now += fixed + each * (n if n <= 32 else n * wrong.get(stage.name, 1.0))
            yield from ()

        return replace(stage, measure=measure)

    return tuple(simulate(stage) for stage in STAGES)


def follow(schedule: Schedule, context: CheckContext, clock: Clock) -> None:
    """Run all stages as a check does."""
    for stage in tuple(schedule.stages):
        started = clock.now
        own = replace(context, budget=schedule.budget)
        if not stage.is_left_out(own.budget):
            list(stage.measure(own.for_stage(stage)))
        schedule.finish(stage, clock.now - started)


@pytest.mark.parametrize("factor", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("stage", [*COSTS, "all"])
def test_a_check_keeps_to_its_time_where_stages_take_three_times_as_long_or_a_third(
    clock: Clock, data: ImageDataset, monkeypatch: pytest.MonkeyPatch, stage: str, factor: float
) -> None:
    passes = PassTimes(0.002, 0.006)
    monkeypatch.setattr("assay.check.plan.time_passes", lambda model, dataset: passes)
    monkeypatch.setattr("assay.check.cost.time_passes", lambda model, dataset, *, n: passes)
    wrong = dict.fromkeys(COSTS, factor) if stage == "all" else {stage: factor}
    budget = unbounded(300)
    context = CheckContext.of(nn.Identity(), data, budget=budget, limit=None, seed=0, name="model")
    schedule = fit(context, simulated(clock, wrong=wrong), within=300, reserved=20, started=clock.now)
    assert 280 <= schedule.plan.seconds <= 301
    follow(schedule, context, clock)
    assert clock.now + 20 <= 345
    if clock.now + 20 < 255:  # everything that was still to come took all there is
        later = list(schedule.stages)[-5:]
        assert all(schedule.samples(each) == schedule.most[each.name] for each in later)


@pytest.mark.parametrize(("n", "steps"), [(10_000, 20), (300, 50)])
def test_steps_grow_only_where_enough_images_can_be_attacked_with_them(
    clock: Clock, data: ImageDataset, monkeypatch: pytest.MonkeyPatch, n: int, steps: int
) -> None:
    few = data.subset(torch.arange(n))
    context = CheckContext.of(nn.Identity(), few, budget=unbounded(900), limit=None, seed=0, name="model")
    passes = PassTimes(0.002, 0.006)
    monkeypatch.setattr("assay.check.plan.time_passes", lambda model, dataset: passes)
    monkeypatch.setattr("assay.check.cost.time_passes", lambda model, dataset, *, n: passes)
    schedule = fit(context, simulated(clock, wrong={}), within=900, reserved=20, started=clock.now)
    assert schedule.budget.steps == steps


@pytest.mark.parametrize("n", [1, 16, 500])
def test_the_half_width_is_that_of_the_wilson_interval_of_one_half(n: int) -> None:
    low, high = wilson_interval(n, 2 * n)
    assert half_width(2 * n) == pytest.approx((high - low) / 2)


@pytest.fixture
def stripes() -> ImageDataset:
    labels = torch.arange(90) % 3
    images = torch.randint(0, 60, (90, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 4 * label : 4 * label + 4] += 150
    return ImageDataset(images, labels, ("top", "middle", "bottom"), name="stripes")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)).eval()


def timeless(checkup: Checkup) -> str:
    times = {"seconds": 0.0, "images_per_second": 0.0}
    records = (
        record.model_copy(update={name: 0.0 for name in times if name in type(record).model_fields})
        for record in checkup.records
    )
    return "\n".join(record.model_dump_json() for record in records)


def test_the_images_of_a_planned_check_can_be_taken_again(network: nn.Module, stripes: ImageDataset) -> None:
    plans: list[CheckPlan] = []
    planned = run_check(network, stripes, within=5.0, on_plan=plans.append)
    assert planned.plan is not None
    assert planned.budget == "within 5s"
    assert {stage.name for stage in plans[0].stages} == {stage.name for stage in STAGES}
    clean = planned.first(CleanAccuracy)
    assert clean is not None
    assert clean.n == planned.plan.budget.samples["clean accuracy"] == planned.subject.n
    again = run_check(network, stripes, budget=planned.plan.budget)
    assert timeless(again) == timeless(planned)
    assert again.plan is not None
    assert again.plan.budget == planned.plan.budget
    document = Checkup.model_validate_json(planned.model_dump_json())
    assert document.model_dump_json() == planned.model_dump_json()


def test_what_there_is_no_time_for_is_told(network: nn.Module, stripes: ImageDataset) -> None:
    checkup = run_check(network, stripes, within=0.001)
    assert not checkup.complete
    failures = {failure.stage: failure for failure in checkup.each(FailedMeasurement)}
    assert failures.keys() == COSTS.keys() - {"clean accuracy"}
    assert failures["attacks"].reason == "no time within 0.001s for as many images as tell something"
    assert "robust_accuracy" in failures["attacks"].missing
    assert {verdict.status for verdict in checkup.verdicts if verdict.rule == "A202"} == {"could not run"}


def test_a_planned_check_that_stopped_keeps_its_plan(network: nn.Module, stripes: ImageDataset, tmp_path: Path) -> None:
    plans: list[CheckPlan] = []

    def stop(name: str, at: int, total: int) -> None:
        if at == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_check(network, stripes, within=5.0, folder=tmp_path, on_stage=stop, on_plan=plans.append)
    with pytest.raises(
        OptionError, match=r"identity.json: budget.within: expected 5.0 as in the run to resume, got 60"
    ):
        run_check(network, stripes, within=60.0, folder=tmp_path, resume=True)
    resumed = run_check(network, stripes, within=5.0, folder=tmp_path, resume=True)
    assert resumed.plan is not None
    assert resumed.plan.budget == plans[-1].budget
    assert [stage.name for stage in resumed.plan.stages] == [stage.name for stage in plans[-1].stages]
    assert timeless(resumed) == timeless(run_check(network, stripes, budget=plans[-1].budget))


@pytest.mark.parametrize("within", [0.0, -1.0, float("inf")])
def test_a_wall_time_is_a_number_of_seconds_above_0(network: nn.Module, stripes: ImageDataset, within: float) -> None:
    with pytest.raises(OptionError, match="within: expected a number of seconds above 0"):
        run_check(network, stripes, within=within)


def test_samples_are_given_to_stages_that_there_are(network: nn.Module, stripes: ImageDataset) -> None:
    budget = BUDGETS["quick"].model_copy(update={"samples": {"atacks": 3}})
    with pytest.raises(OptionError, match=r"budget.samples: expected some of: .*attacks.*, got 'atacks'"):
        run_check(network, stripes, budget=budget)


def test_one_image_and_two_classes_are_planned_for(network: nn.Module, stripes: ImageDataset) -> None:
    checkup = run_check(network, stripes.subset(torch.tensor([3])), within=5.0)
    assert checkup.plan is not None
    assert set(checkup.plan.budget.samples.values()) <= {0, 1}
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 2)).eval()
    two = ImageDataset(stripes.images[:50], stripes.labels[:50].clamp(max=1), ("a", "b"), name="two")
    planned = run_check(model, two, within=5.0).plan
    assert planned is not None
    assert max(planned.budget.samples.values()) == 50


@pytest.mark.parametrize(("margin", "bounds"), [(1e-4, (0.0, 0.2)), (20.0, (0.6, 1.0))])
def test_a_short_attack_tells_how_many_passes_longer_ones_will_need(margin: float, bounds: tuple[float, float]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([margin, 0.0]))
        model[1].weight.copy_(torch.stack([-torch.ones(64), torch.ones(64)]) * 1e-3)
        model[1].bias[0] += 0.128 * 0.5  # as near to the boundary as the margin, for images of mean one half
    images = torch.full((40, 1, 8, 8), 127, dtype=torch.uint8)
    data = ImageDataset(images, torch.zeros(40).long(), ("a", "b"))
    context = CheckContext.of(model, data, budget=BUDGETS["quick"], limit=None, seed=0, name="model")
    low, high = bounds
    assert low <= measure_needed_passes(context, PassTimes(1.0, 3.0), seconds=1e3) <= high


def test_what_cannot_be_attacked_is_expected_to_need_its_usual_share(stripes: ImageDataset) -> None:
    class Refuses(nn.Module):
        def forward(self, images):
            raise RuntimeError("no")

    context = CheckContext.of(Refuses(), stripes, budget=BUDGETS["quick"], limit=None, seed=0, name="model")
    assert measure_needed_passes(context, PassTimes(1.0, 3.0), seconds=1.0) == DROPPED
