"""Auto-PGD: projected gradient steps with momentum and a step size that halves itself where progress stops."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from assay.attacks.batch import ActiveBatch, Keeps, ModelOutput, Samples, initial_fields
from assay.attacks.losses import AttackLoss, cross_entropy
from assay.attacks.threat import Threat, column

_MOMENTUM = 0.75  # α of the paper: the share of the new step
_RISES = 0.75  # ρ of the paper: below this share of rising steps the step size is halved


@dataclass(eq=False)
class ApgdBatch(ActiveBatch):
    """Lanes with what Auto-PGD remembers of each row.

    ``previous`` is the image before ``iterate``; ``best`` the image of the largest loss so far, with its gradient
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
class ApgdMethod:
    """Auto-PGD (Croce & Hein 2020, algorithm 1) with its own defaults: first step 2ε, α = 0.75, ρ = 0.75.

    x⁽ᵏ⁺¹⁾ = Π(x⁽ᵏ⁾ + α(z − x⁽ᵏ⁾) + (1 − α)(x⁽ᵏ⁾ − x⁽ᵏ⁻¹⁾)), z = Π(x⁽ᵏ⁾ + η·d). At checkpoints the step η halves, and
    the search returns to its best image, where fewer than ρ of the steps since the last one raised the loss, or
    where the best loss did not move although η was not halved then. ``rank`` n ≥ 2 moves towards the class that is
    n-th most likely on the clean image; None is untargeted.
    """

    name: str
    steps: int = 100
    loss: AttackLoss = cross_entropy
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

    def begin(self, samples: Samples, threat: Threat) -> ApgdBatch:
        """A random point on the border of the ball."""
        noise = threat.geometry.sample(samples.ids, self.seed, 0xA9, self.stream, self.rank or 0, like=samples.images)
        size = threat.geometry.distance(noise).clamp_min(torch.finfo(noise.dtype).tiny)
        moved = samples.images + column(samples.epsilon / size) * noise
        iterate = threat.project(moved, samples.images, samples.epsilon)
        unseen = torch.full_like(samples.epsilon, -torch.inf)
        fields = initial_fields(samples, iterate=iterate, rank=self.rank)
        return ApgdBatch(
            **fields,
            previous=iterate,
            best=iterate,
            best_gradient=torch.zeros_like(iterate),
            best_loss=unseen,
            last_loss=torch.full_like(samples.epsilon, torch.inf),
            step_size=2.0 * samples.epsilon,
            rises=torch.zeros_like(samples.index),
            checked=unseen,
            halved=torch.ones_like(samples.index, dtype=torch.bool),
        )

    def advance(self, batch: ApgdBatch, output: ModelOutput, threat: Threat) -> ApgdBatch:
        """Remember the best, adapt the step at a checkpoint, and move."""
        better = output.losses > batch.best_loss
        batch.best = torch.where(column(better), batch.iterate, batch.best)
        batch.best_gradient = torch.where(column(better), output.gradient, batch.best_gradient)
        batch.best_loss = torch.where(better, output.losses, batch.best_loss)
        batch.rises = batch.rises + (output.losses > batch.last_loss)
        batch.last_loss = output.losses
        here, gradient = self._adapt(batch, output)
        geometry, first = threat.geometry, column(batch.step == 0)
        step = column(batch.step_size) * geometry.steepest(gradient)
        target = threat.project(here + step, batch.images, batch.epsilon)
        drift = torch.where(first, 0.0, (1 - _MOMENTUM) * (here - batch.previous))
        share = torch.where(first, 1.0, _MOMENTUM)
        batch.previous = here
        batch.iterate = threat.project(here + share * (target - here) + drift, batch.images, batch.epsilon)
        batch.step = batch.step + 1
        return batch

    def _adapt(self, batch: ApgdBatch, output: ModelOutput) -> tuple[Tensor, Tensor]:
        """Halve the step of rows at a checkpoint without progress; where to step from, and along which gradient."""
        periods = torch.tensor(self._periods, device=batch.step.device)[batch.step]
        due = periods > 0
        if not bool(due.any()):
            return batch.iterate, output.gradient
        oscillates = batch.rises <= _RISES * periods
        stuck = ~batch.halved & (batch.checked >= batch.best_loss)
        halve = due & (oscillates | stuck)
        batch.step_size = torch.where(halve, batch.step_size / 2, batch.step_size)
        batch.halved = torch.where(due, halve, batch.halved)
        batch.checked = torch.where(due, batch.best_loss, batch.checked)
        batch.rises = torch.where(due, 0, batch.rises)
        back = column(halve)
        return (
            torch.where(back, batch.best, batch.iterate),
            torch.where(back, batch.best_gradient, output.gradient),
        )
