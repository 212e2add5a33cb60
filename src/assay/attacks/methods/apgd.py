"""Auto-PGD and its L1 form: projected gradient steps with momentum, and a step size that adapts to progress."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks import draws
from assay.attacks.batch import ActiveBatch, ModelOutput, RankedMethod, Samples, initial_fields
from assay.attacks.losses import find_loss, fit_to_classes, targeted_dlr
from assay.attacks.options import AttackOptions, AttackPlan, Loss, Restarts, Steps, TargetClasses, register
from assay.attacks.threat import Threat, column

_MOMENTUM = 0.75  # α of the paper: the share of the new step
_RISES = 0.75  # ρ of the paper: below this share of rising steps the step size is halved


@register
class APGD(AttackOptions):
    """Auto-PGD (APGD): untargeted PGD with momentum and an adaptive step size.

    Attributes:
        steps: gradient steps of one run, at least 1.
        restarts: runs from different random starts, at least 1.
        loss: what to maximise: ce, margin, dlr or probability-margin.

    Example:
        >>> import assay
        >>> assay.APGD(restarts=5).describe(assay.Threat())  # steps, step size, restarts
        (100, None, 5)

    Reference:
        Croce & Hein 2020, arXiv:2003.01690, algorithm 1; under L1 Croce & Hein 2021, arXiv:2103.01208.
    """

    name: ClassVar[str] = "apgd-ce"
    steps: Steps = 100
    restarts: Restarts = 1
    loss: Loss = "ce"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        loss, notes = fit_to_classes(find_loss(self.loss), classes)
        kind = ApgdL1Method if threat.norm == "l1" else ApgdMethod
        method = partial(kind, name=self.name, steps=self.steps, loss=loss, seed=seed)
        return AttackPlan(tuple(method(stream=restart) for restart in range(self.restarts)), notes)


@register
class APGDT(AttackOptions):
    """Targeted Auto-PGD (APGD-T): on the targeted difference of logits ratio, towards each likely wrong class in turn.

    Reference:
        Croce & Hein 2020, arXiv:2003.01690, eq. 7.
    """

    name: ClassVar[str] = "apgd-t"
    steps: Steps = 100
    n_target_classes: TargetClasses = 9

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        loss, notes = fit_to_classes(targeted_dlr, classes)
        kind = ApgdL1Method if threat.norm == "l1" else ApgdMethod
        method = partial(kind, name=self.name, steps=self.steps, loss=loss, seed=seed, stream=1)
        ranks = range(2, 2 + min(self.n_target_classes, classes - 1))
        return AttackPlan(tuple(method(rank=rank) for rank in ranks), notes)


@dataclass(eq=False)
class _BestBatch(ActiveBatch):
    """The image of the largest loss so far, with its gradient and loss."""

    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor

    def keep_better(self, output: ModelOutput) -> None:
        better = output.losses > self.best_loss
        self.best = torch.where(column(better), self.iterate, self.best)
        self.best_gradient = torch.where(column(better), output.gradient, self.best_gradient)
        self.best_loss = torch.where(better, output.losses, self.best_loss)

    def restart(self, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Where to step from and along which gradient: the best image for ``rows``, else the iterate."""
        back = column(rows)
        return torch.where(back, self.best, self.iterate), torch.where(back, self.best_gradient, gradient)


@dataclass(eq=False)
class ApgdBatch(_BestBatch):
    """``previous`` is the image before ``iterate``; ``rises`` counts the steps since the last checkpoint that raised
    the loss; ``checked`` is the best loss at that checkpoint and ``halved`` whether it halved the step size.
    """

    previous: Tensor
    last_loss: Tensor
    step_size: Tensor
    rises: Tensor
    checked: Tensor
    halved: Tensor


@dataclass(frozen=True, kw_only=True)
class ApgdMethod(RankedMethod[ApgdBatch]):
    """Auto-PGD (Croce & Hein 2020, algorithm 1) with its own defaults: first step 2ε, α = 0.75, ρ = 0.75.

    x⁽ᵏ⁺¹⁾ = Π(x⁽ᵏ⁾ + α(z − x⁽ᵏ⁾) + (1 − α)(x⁽ᵏ⁾ − x⁽ᵏ⁻¹⁾)), z = Π(x⁽ᵏ⁾ + η·d). At checkpoints the step size η halves,
    and the search returns to its best image, where fewer than ρ of the steps since the last one raised the loss, or
    where the best loss did not change although η was not halved then.
    """

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
        noise = threat.geometry.sample(samples.ids, self.seed, 0xA9, self.stream, self.rank or 0, like=samples.images)
        size = threat.geometry.distance(noise).clamp_min(torch.finfo(noise.dtype).tiny)
        moved = samples.images + column(samples.epsilon / size) * noise
        iterate = threat.project(moved, samples.images, samples.epsilon)
        unseen = torch.full_like(samples.epsilon, -torch.inf)
        return ApgdBatch(
            **initial_fields(samples, iterate=iterate, rank=self.rank),
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
        batch.keep_better(output)
        batch.rises = batch.rises + (output.losses > batch.last_loss)
        batch.last_loss = output.losses
        start, gradient = self._adapt(batch, output)
        first = column(batch.step == 0)
        step = column(batch.step_size) * threat.geometry.steepest(gradient)
        stepped = threat.project(start + step, batch.images, batch.epsilon)
        drift = torch.where(first, 0.0, (1 - _MOMENTUM) * (start - batch.previous))
        share = torch.where(first, 1.0, _MOMENTUM)
        batch.previous = start
        batch.iterate = threat.project(start + share * (stepped - start) + drift, batch.images, batch.epsilon)
        batch.step = batch.step + 1
        return batch

    def _adapt(self, batch: ApgdBatch, output: ModelOutput) -> tuple[Tensor, Tensor]:
        """Halve the step of rows at a checkpoint without progress; where to step from, and along which gradient."""
        periods = torch.tensor(self._periods, device=batch.step.device)[batch.step]
        due = periods > 0
        if not bool(due.any()):
            return batch.iterate, output.gradient
        stuck = ~batch.halved & (batch.checked >= batch.best_loss)
        halve = due & ((batch.rises <= _RISES * periods) | stuck)
        batch.step_size = torch.where(halve, batch.step_size / 2, batch.step_size)
        batch.halved = torch.where(due, halve, batch.halved)
        batch.checked = torch.where(due, batch.best_loss, batch.checked)
        batch.rises = torch.where(due, 0, batch.rises)
        return batch.restart(halve, output.gradient)


_RADII = (3.0, 2.0, 1.0)  # in ε, one phase each
_SHARES = (0.3, 0.3)  # of the steps for the first two phases
_FIRST_SHARE = 0.2  # of the pixels that the first steps change
_SPARSER = 1.5  # steps change so many times fewer pixels than the best image has changed
_FEWER = 0.95  # below this share of the pixels changed before, the step is long again
_SHORTEST = 0.1  # step, in radii


@dataclass(eq=False)
class ApgdL1Batch(_BestBatch):
    """``phase`` and the step it ``began`` at; ``best`` is that of the phase. ``share`` is the share of pixels that a
    step changes and ``changed`` the number that the best image had changed at the last checkpoint.
    """

    phase: Tensor
    began: Tensor
    step_size: Tensor
    share: Tensor
    changed: Tensor


@dataclass(frozen=True, kw_only=True)
class ApgdL1Method(RankedMethod[ApgdL1Batch]):
    """APGD for L1 (Croce & Hein 2021, *Mind the box*), algorithm 1 with the published schedule 3ε, 2ε, ε.

    A step moves the share of pixels of the largest gradient, equally, and is projected onto the intersection of ball
    and bounds. At checkpoints the share follows the sparsity of the best image; where that grew sparser the step is as
    long as the radius again and restarts from there, else it is 1.5 times shorter.
    """

    stays_inside: bool = False  # the first two phases search outside the ball, where nothing counts

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """The steps at which the phases end."""
        first, second = (min(math.ceil(share * self.steps), self.steps) for share in _SHARES)
        return (first, min(first + second, self.steps), self.steps)

    def begin(self, samples: Samples, threat: Threat) -> ApgdL1Batch:
        images = samples.images
        noise = draws.normal(samples.ids, self.seed, 0xA1, self.stream, self.rank or 0, size=images[0].numel())
        moved = images + noise.to(images).reshape(images.shape)
        iterate = threat.project(moved, images, _RADII[0] * samples.epsilon)
        return ApgdL1Batch(
            **initial_fields(samples, iterate=iterate, rank=self.rank),
            phase=torch.zeros_like(samples.index),
            began=torch.zeros_like(samples.index),
            best=iterate,
            best_gradient=torch.zeros_like(iterate),
            best_loss=torch.full_like(samples.epsilon, -torch.inf),
            step_size=_RADII[0] * samples.epsilon,
            share=torch.full_like(samples.epsilon, _FIRST_SHARE),
            changed=torch.full_like(samples.epsilon, images[0].numel()),
        )

    def advance(self, batch: ApgdL1Batch, output: ModelOutput, threat: Threat) -> ApgdL1Batch:
        """Begin the next phase from the best image where one has ended, else adapt and step."""
        batch.keep_better(output)
        ends = torch.tensor(self._ends, device=batch.step.device)
        radius = batch.epsilon * torch.tensor(_RADII, device=batch.epsilon.device)[batch.phase]
        over = (batch.step == ends[batch.phase]) & (batch.phase < len(_RADII) - 1)
        start, gradient = self._adapt(batch, output, radius, ends, due=~over)
        moved = start + column(batch.step_size) * _sparse(gradient, batch.share)
        batch.phase = batch.phase + over
        smaller = batch.epsilon * torch.tensor(_RADII, device=batch.epsilon.device)[batch.phase]
        moved = torch.where(column(over), batch.best, moved)
        batch.iterate = threat.project(moved, batch.images, smaller)
        if bool(over.any()):
            pixels = batch.images[0].numel()
            changed = _count_changed(batch.iterate, batch.images)
            batch.began = torch.where(over, batch.step, batch.began)
            batch.best_loss = torch.where(over, -torch.inf, batch.best_loss)
            batch.step_size = torch.where(over, smaller, batch.step_size)
            batch.share = torch.where(over, changed / pixels / _SPARSER, batch.share)
            batch.changed = torch.where(over, changed, batch.changed)
        batch.step = batch.step + ~over  # the first image of a phase is evaluated, but is no step
        return batch

    def _adapt(
        self, batch: ApgdL1Batch, output: ModelOutput, radius: Tensor, ends: Tensor, *, due: Tensor
    ) -> tuple[Tensor, Tensor]:
        """At a checkpoint: the share of pixels, the step size, where to step from and along which gradient."""
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        period = (0.04 * (ends - starts)).long().clamp_min(1)[batch.phase]
        taken = batch.step - batch.began
        due = due & (taken > 0) & (taken % period == 0)
        changed = _count_changed(batch.best, batch.images)
        sparser = due & (changed < _FEWER * batch.changed)
        shorter = torch.maximum(batch.step_size / _SPARSER, _SHORTEST * radius)
        batch.step_size = torch.where(due, torch.where(sparser, radius, shorter), batch.step_size)
        batch.share = torch.where(due, changed / batch.images[0].numel() / _SPARSER, batch.share)
        batch.changed = torch.where(due, changed, batch.changed)
        return batch.restart(sparser, output.gradient)


def _count_changed(images: Tensor, originals: Tensor) -> Tensor:
    """Pixels that differ, float (B,)."""
    return (images != originals).flatten(1).sum(dim=1).to(originals)


def _sparse(gradient: Tensor, share: Tensor) -> Tensor:
    """The signs of the largest ``share`` (B,) of each gradient, at least one, scaled to L1 norm 1."""
    magnitude = gradient.flatten(1).abs()
    pixels = magnitude.shape[1]
    place = ((1 - share) * pixels).long().clamp(0, pixels - 1)
    threshold = magnitude.sort(dim=1).values.gather(1, place[:, None])
    signs = torch.where(magnitude >= threshold, gradient.flatten(1).sign(), 0.0)
    return (signs / signs.abs().sum(dim=1, keepdim=True).clamp_min(1.0)).reshape(gradient.shape)
