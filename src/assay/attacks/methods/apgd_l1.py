"""Auto-PGD under L1: sparse steps inside the exact intersection of ball and box, from larger balls to the true one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from assay.attacks import draws
from assay.attacks.batch import ActiveBatch, Keeps, ModelOutput, Samples, initial_fields
from assay.attacks.losses import AttackLoss, cross_entropy
from assay.attacks.threat import Threat, column

_RADII = (3.0, 2.0, 1.0)  # in ε, one phase each
_SHARES = (0.3, 0.3)  # of the steps for the first two phases
_FIRST_SHARE = 0.2  # of the pixels that the first steps move
_SPARSER = 1.5  # steps move so many times fewer pixels than the best image has changed
_FEWER = 0.95  # below this share of the pixels changed before, the step is long again
_SHORTEST = 0.1  # step, in radii


@dataclass(eq=False)
class ApgdL1Batch(ActiveBatch):
    """``phase`` and the step it began at, the best image of the phase with gradient and loss, the step size.

    ``share`` is the share of pixels a step moves and ``changed`` counts those the best image had changed when asked
    last.
    """

    phase: Tensor
    began: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step_size: Tensor
    share: Tensor
    changed: Tensor


@dataclass(frozen=True)
class ApgdL1Method:
    """APGD for L1 (Croce & Hein 2021, *Mind the box*), algorithm 1 with the published schedule 3ε, 2ε, ε.

    A step climbs on the share of pixels of the largest gradient, equally, and is projected onto ball ∩ box. At
    checkpoints the share follows the sparsity of the best image; where that grew sparser the step is as long as the
    radius again and restarts from there, else it is 1.5 times shorter. ``rank`` is as in Auto-PGD.
    """

    name: str
    steps: int = 100
    loss: AttackLoss = cross_entropy
    rank: int | None = None
    seed: int = 0
    stream: int = 0
    keeps: Keeps = "first"
    stays_inside: bool = False  # the first two phases search where nothing counts

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """The steps at which the phases end."""
        first, second = (min(math.ceil(share * self.steps), self.steps) for share in _SHARES)
        return (first, min(first + second, self.steps), self.steps)

    def begin(self, samples: Samples, threat: Threat) -> ApgdL1Batch:
        """Gaussian noise, projected into three times the ball."""
        images = samples.images
        noise = draws.normal(samples.ids, self.seed, 0xA1, self.stream, self.rank or 0, size=images[0].numel())
        moved = images + noise.to(images).reshape(images.shape)
        iterate = threat.project(moved, images, _RADII[0] * samples.epsilon)
        fields = initial_fields(samples, iterate=iterate, rank=self.rank)
        return ApgdL1Batch(
            **fields,
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
        """Remember the best; begin the next phase from it where one has ended, else adapt and step."""
        better = output.losses > batch.best_loss
        batch.best = torch.where(column(better), batch.iterate, batch.best)
        batch.best_gradient = torch.where(column(better), output.gradient, batch.best_gradient)
        batch.best_loss = torch.where(better, output.losses, batch.best_loss)
        ends = torch.tensor(self._ends, device=batch.step.device)
        radius = batch.epsilon * torch.tensor(_RADII, device=batch.epsilon.device)[batch.phase]
        over = (batch.step == ends[batch.phase]) & (batch.phase < len(_RADII) - 1)
        here, gradient = self._adapt(batch, output, radius, ends, due=~over)
        moved = here + column(batch.step_size) * _sparse(gradient, batch.share)
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
        batch.step = batch.step + ~over  # the first image of a phase is asked about, but is no step
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
        back = column(sparser)
        return (
            torch.where(back, batch.best, batch.iterate),
            torch.where(back, batch.best_gradient, output.gradient),
        )


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
