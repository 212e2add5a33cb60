"""Fit a check into a wall time: how many images each stage takes, planned before and again after every stage."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from assay.check.cost import (
    DROPPED,
    PassTimes,
    longest_costs,
    measure_costs,
    measure_needed_passes,
    time_passes,
)
from assay.check.stages import BUDGETS, CheckContext, CheckStage
from assay.records.budget import Budget, CheckPlan, PlannedStage
from assay.runtime.allocation import SLACK, TRIAL_SHARE, Cost, Share, allocate
from assay.wording import duration

_ESTIMATE_SECONDS = 1.5  # at most, about, of an attack beforehand, where a budget decides
_SHORT = 20.0  # seconds of all passes, up to which that would take as long as it tells
_UNTIMED_SHARE = 0.04  # of all the time, for the stages that have no number of images, until they ran
_NOTICEABLE = 0.02  # of all the time: a stage of this length counts half as evidence of how good expectations are
_PRIOR = 1.0  # stages that went as expected, which are thought to have been there before
_MOST_WRONG = 4.0  # times that a stage may take of what was expected, for what it tells of the others
_ATTACKED = {"full": 1_000, "standard": 200, "quick": 0}  # images that the steps of this budget ask for at least
_STEPS = ("steps", "restarts", "gallery", "sample_gallery", "sanity_queries")


def unbounded(seconds: float) -> Budget:
    """The budget that a wall time is fitted into: all images, the steps of ``standard``."""
    full, standard = BUDGETS["full"], BUDGETS["standard"]
    most = {field: getattr(full, field) for field in ("clean", "attacked", "probed", "sanity_samples", "mapped")}
    return standard.model_copy(update={"name": f"within {duration(seconds)}", **most})


@dataclass(eq=False)
class Schedule:
    """What the stages of a check are expected to take, corrected by what those before took.

    With ``within``, the number of images of every stage still to come is planned anew after each; of these seconds,
    counted from ``started``, ``reserved`` are kept for what is no stage. Without it ``budget`` stays as it is.
    """

    stages: Sequence[CheckStage]
    most: Mapping[str, int]
    costs: Mapping[str, Cost]
    fixed: Mapping[str, float]
    budget: Budget
    started: float
    within: float | None = None
    reserved: float = 0.0
    before: float = 0.0
    adapts: bool = False
    _took: dict[str, float] = field(default_factory=dict)
    _expected: dict[str, float] = field(default_factory=dict)

    @property
    def plan(self) -> CheckPlan:
        """As it stands: of a stage that has run, what was expected of it before."""
        stages = tuple(self._describe(stage) for stage in self.stages)
        return CheckPlan(
            within=self.within, reserved=self.reserved, before=self.before, budget=self.budget, stages=stages
        )

    def samples(self, stage: CheckStage) -> int | None:
        """Images that the stage takes; None where their number cannot be chosen."""
        return None if stage.effort is None else self.budget.samples.get(stage.name, self.most[stage.name])

    def sort(self) -> None:
        """Bring the longest to the front, so that what they take more or less than expected is met by the others.

        Those without a number of images come first of all: what they take is known then; and what is required, so that
        it is not what the others leave.
        """
        self.stages = sorted(
            self.stages, key=lambda stage: (stage.effort is not None, not stage.required, -self._seconds(stage))
        )

    def finish(self, stage: CheckStage, seconds: float) -> None:
        """The stage took so many seconds: correct what is expected of the others, and plan them anew."""
        self._expected[stage.name] = self._seconds(stage)
        self._took[stage.name] = seconds
        if self.adapts:
            self.allocate()

    def allocate(self) -> bool:
        """Give the stages to come the images that the time left allows; whether every one fits."""
        assert self.within is not None
        coming = [stage for stage in self.stages if stage.name not in self._took]
        left = self.started + self.within - self.reserved - time.perf_counter()
        left -= sum(self._seconds(stage) for stage in coming if stage.effort is None)
        shares = [
            Share(
                stage.name,
                self._cost(stage),
                stage.effort.weight,
                least=min(stage.effort.least, self.most[stage.name]),
                most=self.most[stage.name],
                required=stage.required,
            )
            for stage in coming
            if stage.effort is not None and self.samples(stage) != 0  # what is left out stays so
        ]
        given = allocate(shares, left, slack=SLACK * self.within)
        self.budget = self.budget.model_copy(update={"samples": {**self.budget.samples, **given}})
        return all(given.values())

    def _cost(self, stage: CheckStage) -> Cost:
        """As measured on a few images, times how much longer than that the stages before took.

        That is the geometric mean of their ratios, in which a stage counts by its length, none for more than
        :data:`_MOST_WRONG`, and one that went as expected is thought to have been there before. Attacks that succeed
        early take less than expected, which tells of other attacks only.
        """
        assert stage.effort is not None
        logarithms, weights = 0.0, _PRIOR
        for other in self.stages:
            n = self.samples(other)
            if other.effort is None or other.name not in self._took or not n:
                continue
            expected, took = self.costs[other.name].seconds(n), self._took[other.name]
            ratio = min(max(took / max(expected, 1e-9), 1 / _MOST_WRONG), _MOST_WRONG)
            if ratio < 1 and other.effort.searches and not stage.effort.searches:
                continue
            weight = 1 / (1 + _NOTICEABLE * self._total / max(expected, took, 1e-9))
            logarithms, weights = logarithms + weight * math.log(ratio), weights + weight
        return self.costs[stage.name].times(math.exp(logarithms / weights))

    @property
    def _total(self) -> float:
        return self.within or sum(cost.seconds(self.most[name]) for name, cost in self.costs.items())

    def _seconds(self, stage: CheckStage) -> float:
        if stage.name in self._expected:
            return self._expected[stage.name]
        if stage.name not in self.costs:
            share = _UNTIMED_SHARE * self._total / sum(each.name not in self.costs for each in self.stages)
            return self.fixed.get(stage.name, 0.0) + share
        n = self.samples(stage)
        return self._cost(stage).seconds(n) if n else 0.0

    def _describe(self, stage: CheckStage) -> PlannedStage:
        usual = None
        if stage.effort is not None:
            counted = getattr(BUDGETS["standard"], stage.effort.samples)
            usual = self.most[stage.name] if counted is None else min(counted, self.most[stage.name])
        interval = stage.effort is not None and stage.effort.interval
        return PlannedStage(
            name=stage.name, seconds=self._seconds(stage), samples=self.samples(stage), usual=usual, interval=interval
        )


def estimate(context: CheckContext, stages: Sequence[CheckStage], *, started: float) -> Schedule:
    """What the budget of ``context`` will take: the passes of every stage, timed on the model.

    A long check is worth a short attack beforehand, which tells how many of their passes such stages will need.
    """
    passes = time_passes(context.model, context.dataset)
    most, costs = _most(context, stages), longest_costs(stages, context.budget, passes)
    needed = DROPPED
    if sum(cost.seconds(most[name]) for name, cost in costs.items()) > _SHORT:
        needed = measure_needed_passes(context, passes, seconds=_ESTIMATE_SECONDS)
    for stage in stages:
        if stage.effort is None:
            continue
        if stage.effort.searches:
            costs[stage.name] = costs[stage.name].times(needed)
        if stage.effort.enough is not None:
            costs[stage.name] = costs[stage.name].times(min(1.0, stage.effort.enough / max(most[stage.name], 1)))
    return Schedule(
        stages, most, costs, _fixed(stages, passes), context.budget, started, before=time.perf_counter() - started
    )


def fit(
    context: CheckContext, stages: Sequence[CheckStage], *, within: float, reserved: float, started: float
) -> Schedule:
    """Plan the images of every stage into the time left, with as many steps as leave enough images to attack."""
    passes = time_passes(context.model, context.dataset)
    most = _most(context, stages)
    costs = measure_costs(context, stages, passes, seconds=TRIAL_SHARE * max(within - reserved, 0.0))
    before = time.perf_counter() - started
    usual = longest_costs(stages, context.budget, passes)
    for level, attacked in _ATTACKED.items():
        steps = {name: getattr(BUDGETS[level], name) for name in _STEPS}
        budget = context.budget.model_copy(update=steps)
        longest = longest_costs(stages, budget, passes)
        scaled = {name: cost.times(longest[name].each / usual[name].each) for name, cost in costs.items()}
        schedule = Schedule(
            stages, most, scaled, _fixed(stages, passes), budget, started, within, reserved, before, adapts=True
        )
        fits = schedule.allocate()
        if fits and schedule.budget.samples.get("attacks", 0) >= min(attacked, most.get("attacks", 0)):
            break
    schedule.sort()
    return schedule


def keep_plan(plan: CheckPlan, stages: Sequence[CheckStage], *, started: float) -> Schedule:
    """The schedule of a check that was interrupted: its images stay as they were planned."""
    planned = {stage.name: stage for stage in plan.stages}
    order = list(planned)
    stages = sorted(stages, key=lambda stage: order.index(stage.name))
    most = {name: stage.samples or 0 for name, stage in planned.items()}
    costs = {name: Cost(fixed=stage.seconds) for name, stage in planned.items()}
    return Schedule(stages, most, costs, {}, plan.budget, started, plan.within, plan.reserved, plan.before)


def _fixed(stages: Sequence[CheckStage], passes: PassTimes) -> dict[str, float]:
    """Seconds of the passes of stages that have no number of images."""
    return {stage.name: passes.of(stage.passes) for stage in stages}


def _most(context: CheckContext, stages: Sequence[CheckStage]) -> dict[str, int]:
    return {stage.name: context.most(stage.effort.samples) for stage in stages if stage.effort is not None}
