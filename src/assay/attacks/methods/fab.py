"""FAB: moves along the decision boundary towards the original, by projections onto its linearisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Self

import torch
from torch import Tensor

from assay.attacks.batch import ActiveBatch, ModelOutput, RankedMethod, Samples, initial_fields, succeeds
from assay.attacks.losses import AttackLoss, margin, target_lead, targeted_margin
from assay.attacks.options import AttackOptions, AttackPlan, Steps, TargetClasses, register
from assay.attacks.threat import Threat, column
from assay.records.attack import Norm

Solve = Callable[[Tensor, Tensor, Tensor], Tensor]  # |w|, largest travel, |c| to the travel of each coordinate
_ITERATIONS = 60


@register
class FAB(AttackOptions):
    """Targeted Fast Adaptive Boundary attack (FAB-T): small perturbations, towards each likely wrong class in turn.

    Attributes:
        steps: gradient steps towards each class, at least 1.
        n_target_classes: how many of the most likely wrong classes, at least 1.

    Example:
        >>> import assay
        >>> len(assay.FAB(n_target_classes=3).plan(assay.Threat(norm="l2"), classes=10, seed=0).methods)
        3

    Reference:
        Croce & Hein 2020, arXiv:1907.02044.
    """

    name: ClassVar[str] = "fab-t"
    steps: Steps = 100
    n_target_classes: TargetClasses = 9

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        ranks = range(2, 2 + min(self.n_target_classes, classes - 1))
        return AttackPlan(
            tuple(FabMethod(name=self.name, steps=self.steps, rank=rank, loss=targeted_margin) for rank in ranks)
        )


def step_to_hyperplane(
    points: Tensor, normals: Tensor, offsets: Tensor, *, norm: Norm, bounds: tuple[float, float]
) -> Tensor:
    """The smallest step (B, D) from each point onto its hyperplane inside the bounds; as far as these allow, else.

    ``points`` x and ``normals`` w are (B, D); ``offsets`` (B,) are ⟨w, x⟩ minus the hyperplane's constant.
    """
    direction = -torch.where(offsets >= 0, 1.0, -1.0)[:, None] * normals.sign()
    travel = torch.where(direction < 0, points - bounds[0], bounds[1] - points).clamp_min(0.0)
    travel = torch.where(direction == 0, 0.0, travel)
    return direction * _SOLVERS[norm](normals.abs(), travel, offsets.abs())


def _newton(rates: Tensor, slopes: Tensor, travel: Tensor, need: Tensor) -> Tensor:
    """min(λ·rates, travel), λ the root of Σ slopes·min(λ, ceilings) = need, ceilings = travel/rates.

    The sum is concave, increasing and piecewise linear, so Newton's method rises from 0 and never passes the root; it
    ends exactly on the root's own piece. Sorting the breakpoints would cost several times as much.
    """
    ceilings = torch.where(rates > 0, travel / rates.clamp_min(torch.finfo(rates.dtype).tiny), 0.0)
    level = torch.zeros_like(need)
    for _ in range(_ITERATIONS):
        total = (slopes * torch.minimum(level[:, None], ceilings)).sum(dim=1)
        slope = torch.where(ceilings > level[:, None], slopes, 0.0).sum(dim=1)
        lacking = (need - total).clamp_min(0.0)
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


_PULL = 0.1  # α_max: the largest weight of the original
_OVERSHOOT = 1.05  # η
_BACKWARD = 0.9  # β: an adversarial image is moved back by this factor before the next step


@dataclass(eq=False)
class FabBatch(ActiveBatch):
    """``fresh`` marks an iterate that was just moved; ``crossed`` that the last fresh one was misclassified."""

    fresh: Tensor
    crossed: Tensor


@dataclass(frozen=True, kw_only=True)
class FabMethod(RankedMethod[FabBatch]):
    """Fast Adaptive Boundary attack (Croce & Hein 2020, ICML, algorithm 1), α_max = 0.1, η = 1.05, β = 0.9.

    A step linearises f = z_t − z_y at x, projects x and the original onto {f = 0} within the bounds (d₁, d₂), and moves
    to (1 − α)(x + η·d₁) + α(x₀ + η·d₂), α = min(‖d₁‖/(‖d₁‖ + ‖d₂‖), α_max). A misclassified result is pulled back to
    x₀ + β(x − x₀). ``rank`` n ≥ 2 with a targeted loss fixes t to the class n-th most likely on the clean image
    (FAB-T); with the margin t is the runner-up of each step.

    The gradient at a fresh iterate is taken only when the one before did not cross the boundary: where it did, this one
    most likely does too and is pulled back, so that its gradient would not be used.
    """

    loss: AttackLoss = margin
    stays_inside: bool = False

    def targeted(self) -> Self | None:
        """Towards z_t − max_{k≠t} z_k, for no other class counts."""
        return replace(self, loss=target_lead) if super().targeted() else None

    def begin(self, samples: Samples, threat: Threat) -> FabBatch:
        no = torch.zeros_like(samples.index, dtype=torch.bool)
        return FabBatch(**initial_fields(samples, iterate=samples.images, rank=self.rank), fresh=no, crossed=no)

    def advance(self, batch: FabBatch, output: ModelOutput, threat: Threat) -> FabBatch:
        """Pull back what crossed, request a gradient where one is missing, and move the rest."""
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
        x, original, normal = batch.iterate.flatten(1), batch.images.flatten(1), output.gradient.flatten(1)
        offset = output.losses + ((original - x) * normal).sum(dim=1)
        d1 = step_to_hyperplane(x, normal, output.losses, norm=threat.norm, bounds=threat.bounds)
        d2 = step_to_hyperplane(original, normal, offset, norm=threat.norm, bounds=threat.bounds)
        distance = threat.geometry.distance
        a, b = (distance(d.reshape(batch.images.shape)).clamp_min(1e-8) for d in (d1, d2))
        alpha = (a / (a + b)).clamp_max(_PULL)[:, None]
        moved = (1 - alpha) * (x + _OVERSHOOT * d1) + alpha * (original + _OVERSHOOT * d2)
        return threat.clip(moved).reshape(batch.images.shape)
