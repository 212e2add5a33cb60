"""Auto-PGD: projected gradient steps with momentum and a step size that halves itself where progress stops."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from assay.attacks.batch import Answer, Keeps, Lanes, Samples, lane_fields
from assay.attacks.losses import Loss, cross_entropy
from assay.attacks.threat import Threat, column

_MOMENTUM = 0.75  # α of the paper: the share of the new step
_RISES = 0.75  # ρ of the paper: below this share of rising steps the step size is halved


@dataclass(eq=False)
class ApgdLanes(Lanes):
    """Lanes with what Auto-PGD remembers of each row.

    ``previous`` is the image before ``candidate``; ``best`` the image of the largest loss so far, with its gradient
    and loss; ``rises`` counts the steps since the last checkpoint that raised the loss; ``checked`` is the best loss
    at that checkpoint and ``halved`` whether it halved the step.
    """

    previous: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    last_loss: Tensor
    step_size: Tensor
    rises: Tensor
    checked: Tensor
    halved: Tensor


@dataclass(frozen=True)
class Apgd:
    """Auto-PGD (Croce & Hein 2020, algorithm 1) with its own defaults: first step 2ε, α = 0.75, ρ = 0.75.

    x⁽ᵏ⁺¹⁾ = Π(x⁽ᵏ⁾ + α(z − x⁽ᵏ⁾) + (1 − α)(x⁽ᵏ⁾ − x⁽ᵏ⁻¹⁾)), z = Π(x⁽ᵏ⁾ + η·d). At checkpoints the step η halves, and
    the search returns to its best image, where fewer than ρ of the steps since the last one raised the loss, or
    where the best loss did not move although η was not halved then. ``rank`` n ≥ 2 moves towards the class that is
    n-th most likely on the clean image; None is untargeted.
    """

    name: str
    steps: int = 100
    loss: Loss = cross_entropy
    rank: int | None = None
    seed: int = 0
    stream: int = 0
    keeps: Keeps = "first"
    stays_inside: bool = True

    @cached_property
    def _periods(self) -> tuple[int, ...]:
        """For each step count: the length of the period that a checkpoint there ends, 0 where there is none."""
        periods = [0] * (self.steps + 1)
        period, shortest = max(int(0.22 * self.steps), 1), max(int(0.06 * self.steps), 1)
        shorter, step = max(int(0.03 * self.steps), 1), 0
        while step + period <= self.steps:
            step += period
            periods[step] = period
            period = max(period - shorter, shortest)
        return tuple(periods)

    def begin(self, samples: Samples, threat: Threat) -> ApgdLanes:
        """A random point on the border of the ball."""
        noise = threat.geometry.sample(samples.ids, self.seed, 0xA9, self.stream, self.rank or 0, like=samples.images)
        size = threat.geometry.distance(noise).clamp_min(torch.finfo(noise.dtype).tiny)
        moved = samples.images + column(samples.epsilon / size) * noise
        candidate = threat.project(moved, samples.images, samples.epsilon)
        unseen = torch.full_like(samples.epsilon, -torch.inf)
        fields = lane_fields(samples, candidate=candidate, rank=self.rank)
        return ApgdLanes(
            **fields,
            previous=candidate,
            best=candidate,
            best_gradient=torch.zeros_like(candidate),
            best_loss=unseen,
            last_loss=torch.full_like(samples.epsilon, torch.inf),
            step_size=2.0 * samples.epsilon,
            rises=torch.zeros_like(samples.index),
            checked=unseen,
            halved=torch.ones_like(samples.index, dtype=torch.bool),
        )

    def advance(self, lanes: ApgdLanes, answer: Answer, threat: Threat) -> ApgdLanes:
        """Remember the best, adapt the step at a checkpoint, and move."""
        better = answer.losses > lanes.best_loss
        lanes.best = torch.where(column(better), lanes.candidate, lanes.best)
        lanes.best_gradient = torch.where(column(better), answer.gradient, lanes.best_gradient)
        lanes.best_loss = torch.where(better, answer.losses, lanes.best_loss)
        lanes.rises = lanes.rises + (answer.losses > lanes.last_loss)
        lanes.last_loss = answer.losses
        here, gradient = self._adapt(lanes, answer)
        geometry, first = threat.geometry, column(lanes.step == 0)
        step = column(lanes.step_size) * geometry.steepest(gradient)
        target = threat.project(here + step, lanes.images, lanes.epsilon)
        drift = torch.where(first, 0.0, (1 - _MOMENTUM) * (here - lanes.previous))
        share = torch.where(first, 1.0, _MOMENTUM)
        lanes.previous = here
        lanes.candidate = threat.project(here + share * (target - here) + drift, lanes.images, lanes.epsilon)
        lanes.step = lanes.step + 1
        return lanes

    def _adapt(self, lanes: ApgdLanes, answer: Answer) -> tuple[Tensor, Tensor]:
        """Halve the step of rows at a checkpoint without progress; where to step from, and along which gradient."""
        periods = torch.tensor(self._periods, device=lanes.step.device)[lanes.step]
        due = periods > 0
        if not bool(due.any()):
            return lanes.candidate, answer.gradient
        oscillates = lanes.rises <= _RISES * periods
        stuck = ~lanes.halved & (lanes.checked >= lanes.best_loss)
        halve = due & (oscillates | stuck)
        lanes.step_size = torch.where(halve, lanes.step_size / 2, lanes.step_size)
        lanes.halved = torch.where(due, halve, lanes.halved)
        lanes.checked = torch.where(due, lanes.best_loss, lanes.checked)
        lanes.rises = torch.where(due, 0, lanes.rises)
        back = column(halve)
        return (
            torch.where(back, lanes.best, lanes.candidate),
            torch.where(back, lanes.best_gradient, answer.gradient),
        )
