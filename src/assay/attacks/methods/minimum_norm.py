"""The nearest adversarial image: one run gives the whole curve of accuracy against epsilon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.attacks.batch import ActiveBatch, Keeps, Method, ModelOutput, Samples, initial_fields, succeeds
from assay.attacks.losses import AttackLoss, margin
from assay.attacks.options import AttackOptions, AttackPlan, Steps, register
from assay.attacks.threat import Threat, column

_OVERSHOOT = 1.02  # beyond the boundary of the linearised model
_FIRST_GAMMA, _LAST_GAMMA = 0.05, 1e-3  # how fast the radius changes


@register
class MinimumNorm(AttackOptions):
    """Fast minimum-norm attack (FMN): the nearest adversarial image of each sample, whatever its distance.

    Distances beyond ε are found and reported as well; only those within ε count as broken.

    Attributes:
        steps: gradient steps, at least 1.

    Example:
        >>> import assay
        >>> assay.MinimumNorm(steps=100).describe(assay.Threat(norm="l2"))[0]
        100

    Reference:
        Pintor et al. 2021, arXiv:2102.12827, algorithm 1.
    """

    name: ClassVar[str] = "min-norm"
    steps: Steps = 60

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        return AttackPlan((MinimumNormMethod(name=self.name, steps=self.steps),))


@dataclass(eq=False)
class MinimumNormBatch(ActiveBatch):
    """``radius`` of the ball that each row searches now; ``nearest`` distance at which it was adversarial."""

    radius: Tensor
    nearest: Tensor


@dataclass(frozen=True, kw_only=True)
class MinimumNormMethod(Method[MinimumNormBatch]):
    """FMN (Pintor et al. 2021, algorithm 1): steps on the margin inside a ball that shrinks while it contains success.

    Where x is not adversarial: ε ← ‖δ‖ + |margin|/‖∇margin‖_* (and 2 % more) until a success was seen, ε(1 + γ)
    after; where it is: ε ← min(ε(1 − γ), smallest ‖δ‖ so far). Then δ ← Π_ε(δ + α·d) with d the steepest direction of
    the norm, α and γ annealed by a cosine. ``first_step`` is α at the start, as a share of the current radius.
    """

    loss: AttackLoss = margin
    keeps: Keeps = "nearest"
    first_step: float = 0.5
    last_step: float = 0.02

    def begin(self, samples: Samples, threat: Threat) -> MinimumNormBatch:
        unbounded = torch.full_like(samples.epsilon, torch.inf)  # the ball of the threat does not bind the search
        fields = initial_fields(samples, iterate=samples.images) | {"epsilon": unbounded}
        return MinimumNormBatch(**fields, radius=unbounded, nearest=unbounded)

    def advance(self, batch: MinimumNormBatch, output: ModelOutput, threat: Threat) -> MinimumNormBatch:
        geometry = threat.geometry
        delta = batch.iterate - batch.images
        length = geometry.distance(delta)
        crossed = succeeds(output.logits, batch)
        batch.nearest = torch.where(crossed, torch.minimum(batch.nearest, length), batch.nearest)
        gamma = _anneal(batch.step, self.steps, _FIRST_GAMMA, _LAST_GAMMA)
        tiny = torch.finfo(length.dtype).tiny
        # A linear model would be met exactly on its boundary, a tie: hence the overshoot, and the growth where it ties.
        ahead = _OVERSHOOT * (length + output.losses.abs() / geometry.dual(output.gradient).clamp_min(tiny))
        grown = batch.radius * (1 + gamma)
        ahead = torch.maximum(ahead, torch.where(batch.radius.isfinite(), grown, 0.0))
        wider = torch.where(batch.nearest.isfinite(), grown, ahead)
        smaller = torch.minimum(batch.radius * (1 - gamma), batch.nearest)
        largest = geometry.distance(torch.ones_like(batch.images)) * (threat.bounds[1] - threat.bounds[0])
        batch.radius = torch.minimum(torch.where(crossed, smaller, wider), largest)
        relative_step = _anneal(batch.step, self.steps, self.first_step, self.last_step)
        step = column(relative_step * batch.radius) * geometry.steepest(output.gradient)
        batch.iterate = threat.clip(batch.images + geometry.project(delta + step, batch.radius))
        batch.step = batch.step + 1
        return batch


def _anneal(step: Tensor, steps: int, first: float, last: float) -> Tensor:
    """Half a cosine from ``first`` at step 0 to ``last`` at ``steps``, (B,)."""
    return last + (first - last) * 0.5 * (1 + torch.cos(math.pi * step.float() / max(steps, 1)))
