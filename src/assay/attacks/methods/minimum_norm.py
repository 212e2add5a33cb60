"""The nearest adversarial image: one run gives the whole curve of accuracy against epsilon."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.attacks.batch import Answer, Keeps, Lanes, Samples, lane_fields, succeeds
from assay.attacks.losses import Loss, margin
from assay.attacks.threat import Threat, column

_OVERSHOOT = 1.02  # beyond the boundary as the linearisation sees it
_FIRST_GAMMA, _LAST_GAMMA = 0.05, 1e-3  # how fast the radius moves


@dataclass(eq=False)
class MinimalLanes(Lanes):
    """``radius`` of the ball each row searches now; ``nearest`` distance at which it was adversarial."""

    radius: Tensor
    nearest: Tensor


@dataclass(frozen=True)
class FastMinimumNorm:
    """FMN (Pintor et al. 2021, algorithm 1): steps on the margin inside a ball that shrinks while it contains success.

    Where x is not adversarial: ε ← ‖δ‖ + |margin|/‖∇margin‖_* (and 2 % more) until a success was seen, ε(1 + γ)
    after; where it is: ε ← min(ε(1 − γ), smallest ‖δ‖ so far). Then δ ← Π_ε(δ + α·d) with d the steepest direction of
    the norm, α and γ annealed by a cosine. ``first_step`` is α at the start, as a share of the current radius.
    """

    name: str = "min-norm"
    steps: int = 60
    first_step: float = 0.5
    last_step: float = 0.02
    loss: Loss = margin
    keeps: Keeps = "nearest"
    stays_inside: bool = True

    def begin(self, samples: Samples, threat: Threat) -> MinimalLanes:
        """The original itself; the ball of the threat does not bind the search."""
        lanes = MinimalLanes(
            **lane_fields(samples, candidate=samples.images),
            radius=torch.full_like(samples.epsilon, torch.inf),
            nearest=torch.full_like(samples.epsilon, torch.inf),
        )
        return replace(lanes, epsilon=torch.full_like(samples.epsilon, torch.inf))

    def advance(self, lanes: MinimalLanes, answer: Answer, threat: Threat) -> MinimalLanes:
        """Move the radius, then the image."""
        geometry = threat.geometry
        delta = lanes.candidate - lanes.images
        length = geometry.distance(delta)
        crossed = succeeds(answer.logits, lanes)
        lanes.nearest = torch.where(crossed, torch.minimum(lanes.nearest, length), lanes.nearest)
        gamma = _anneal(lanes.step, self.steps, _FIRST_GAMMA, _LAST_GAMMA)
        tiny = torch.finfo(length.dtype).tiny
        # A linear model would be met exactly on its boundary, a tie: hence the overshoot, and the growth where it ties.
        ahead = _OVERSHOOT * (length + answer.losses.abs() / geometry.dual(answer.gradient).clamp_min(tiny))
        ahead = torch.maximum(ahead, torch.where(lanes.radius.isfinite(), lanes.radius * (1 + gamma), 0.0))
        seen = lanes.nearest.isfinite()
        wider = torch.where(seen, lanes.radius * (1 + gamma), ahead)
        smaller = torch.minimum(lanes.radius * (1 - gamma), lanes.nearest)
        largest = geometry.distance(torch.ones_like(lanes.images)) * (threat.box[1] - threat.box[0])
        lanes.radius = torch.minimum(torch.where(crossed, smaller, wider), largest)
        pace = _anneal(lanes.step, self.steps, self.first_step, self.last_step)
        step = column(pace * lanes.radius) * geometry.steepest(answer.gradient)
        moved = geometry.project(delta + step, lanes.radius)
        lanes.candidate = threat.clip(lanes.images + moved)
        lanes.step = lanes.step + 1
        return lanes


def _anneal(step: Tensor, steps: int, first: float, last: float) -> Tensor:
    """Half a cosine from ``first`` at step 0 to ``last`` at ``steps``, (B,)."""
    return last + (first - last) * 0.5 * (1 + torch.cos(math.pi * step.float() / max(steps, 1)))
