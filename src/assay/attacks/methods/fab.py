"""FAB: walk along the decision boundary towards the original, by projections onto its linearisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from assay.attacks.batch import ActiveBatch, Keeps, ModelOutput, Samples, initial_fields, succeeds
from assay.attacks.losses import AttackLoss, margin, target_lead, targeted_margin
from assay.attacks.threat import Threat, column
from assay.records.attack import Norm

Solve = Callable[[Tensor, Tensor, Tensor], Tensor]  # |w|, travel, |c| to the length of each coordinate's travel
_ITERATIONS = 60


def reach(points: Tensor, normals: Tensor, offsets: Tensor, *, norm: Norm, bounds: tuple[float, float]) -> Tensor:
    """d (B, D) for points x (B, D), normals w (B, D) and offsets c (B,), ⟨w, x⟩ minus the plane's constant."""
    heading = -torch.where(offsets >= 0, 1.0, -1.0)[:, None] * normals.sign()
    travel = torch.where(heading < 0, points - bounds[0], bounds[1] - points).clamp_min(0.0)
    travel = torch.where(heading == 0, 0.0, travel)
    return heading * _SOLVERS[norm](normals.abs(), travel, offsets.abs())


def _newton(rates: Tensor, slopes: Tensor, travel: Tensor, need: Tensor) -> Tensor:
    """min(λ·rates, travel), λ the root of Σ min(λ·slopes, ceilings) = need, ceilings = slopes·travel/rates.

    The sum is concave, increasing and piecewise linear, so Newton's method climbs from 0 and never passes the root;
    it ends exactly on the root's own piece. Sorting the breakpoints would cost several times as much.
    """
    wall = torch.where(rates > 0, travel / rates.clamp_min(torch.finfo(rates.dtype).tiny), 0.0)
    level = torch.zeros_like(need)
    for _ in range(_ITERATIONS):
        gained = (slopes * torch.minimum(level[:, None], wall)).sum(dim=1)
        slope = torch.where(wall > level[:, None], slopes, 0.0).sum(dim=1)
        lacking = (need - gained).clamp_min(0.0)
        raised = torch.where(slope > 0, level + lacking / slope.clamp_min(torch.finfo(slope.dtype).tiny), level)
        if bool((raised <= level * (1 + 1e-6)).all()):
            break
        level = raised
    return torch.minimum(level[:, None] * rates, travel)


def _linf(weights: Tensor, travel: Tensor, need: Tensor) -> Tensor:
    return _newton(torch.ones_like(weights), weights, travel, need)


def _l2(weights: Tensor, travel: Tensor, need: Tensor) -> Tensor:
    # In units of the largest weight, so that squares of tiny gradients do not underflow.
    largest = weights.amax(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    scaled = weights / largest
    return _newton(scaled, scaled.square(), travel, need / largest[:, 0])


def _l1(weights: Tensor, travel: Tensor, need: Tensor) -> Tensor:
    order = weights.argsort(dim=1, descending=True)
    heavy, room = weights.gather(1, order), travel.gather(1, order)
    gains = heavy * room
    left = (need[:, None] - (gains.cumsum(dim=1) - gains)).clamp_min(0.0)
    used = torch.minimum(room, left / heavy.clamp_min(torch.finfo(heavy.dtype).tiny))
    return torch.zeros_like(used).scatter(1, order, torch.where(heavy > 0, used, 0.0))


_SOLVERS: Mapping[Norm, Solve] = MappingProxyType({"linf": _linf, "l2": _l2, "l1": _l1})


_PULL = 0.1  # α_max: how strongly the original pulls
_OVERSHOOT = 1.05  # η
_BACKWARD = 0.9  # β: an adversarial image is moved back by this factor before the next step


@dataclass(eq=False)
class FabBatch(ActiveBatch):
    """``fresh`` marks a candidate that was just moved; ``crossed`` that the last fresh one was misclassified."""

    fresh: Tensor
    crossed: Tensor


@dataclass(frozen=True)
class FabMethod:
    """Fast Adaptive Boundary attack (Croce & Hein 2020, ICML, algorithm 1), α_max = 0.1, η = 1.05, β = 0.9.

    A step linearises f = z_t − z_y at x, projects x and the original onto {f = 0} within the box (d₁, d₂), and moves to
    (1 − α)(x + η·d₁) + α(x₀ + η·d₂), α = min(‖d₁‖/(‖d₁‖ + ‖d₂‖), α_max). A misclassified result is pulled back to
    x₀ + β(x − x₀). ``rank`` n ≥ 2 fixes t to the class n-th most likely on the clean image (FAB-T); None takes the
    runner-up of each step.

    A fresh candidate is asked for its gradient only when the one before did not cross the boundary: where it did, this
    one most likely does too and is pulled back, so that its gradient would be thrown away.
    """

    name: str
    steps: int = 100
    rank: int | None = None
    targeted: bool = False
    keeps: Keeps = "first"
    stays_inside: bool = False

    @property
    def loss(self) -> AttackLoss:
        """z_t − z_y; z_t − max_{k≠t} z_k where t is a goal, for no other class will do."""
        if self.targeted:
            return target_lead
        return margin if self.rank is None else targeted_margin

    def begin(self, samples: Samples, threat: Threat) -> FabBatch:
        """The original itself."""
        fields = initial_fields(samples, iterate=samples.images, rank=self.rank)
        no = torch.zeros_like(samples.index, dtype=torch.bool)
        return FabBatch(**fields, fresh=no, crossed=no)

    def advance(self, batch: FabBatch, output: ModelOutput, threat: Threat) -> FabBatch:
        """Pull back what crossed, ask for a gradient where one is missing, and move the rest."""
        crossed = batch.fresh & succeeds(output.logits, batch)
        moves = ~crossed & batch.wants_gradient
        batch.crossed = torch.where(batch.fresh, crossed, batch.crossed)
        pulled = batch.images + _BACKWARD * (batch.iterate - batch.images)
        iterate = torch.where(column(crossed), pulled, batch.iterate)
        if bool(moves.any()):
            rows = moves.nonzero()[:, 0]
            iterate[rows] = self._move(batch.take(rows), output.take(rows), threat)
        batch.iterate = iterate
        batch.step = batch.step + moves
        batch.wants_gradient = ~(moves & batch.crossed)
        batch.fresh = moves
        return batch

    def _move(self, batch: FabBatch, output: ModelOutput, threat: Threat) -> Tensor:
        here, origin, normal = batch.iterate.flatten(1), batch.images.flatten(1), output.gradient.flatten(1)
        away = output.losses + ((origin - here) * normal).sum(dim=1)
        first = reach(here, normal, output.losses, norm=threat.norm, bounds=threat.bounds)
        second = reach(origin, normal, away, norm=threat.norm, bounds=threat.bounds)
        distance = threat.geometry.distance
        a, b = (distance(d.reshape(batch.images.shape)).clamp_min(1e-8) for d in (first, second))
        pull = (a / (a + b)).clamp_max(_PULL)[:, None]
        moved = (1 - pull) * (here + _OVERSHOOT * first) + pull * (origin + _OVERSHOOT * second)
        return threat.clip(moved).reshape(batch.images.shape)
