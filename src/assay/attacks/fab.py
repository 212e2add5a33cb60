"""FAB: walk along the decision boundary towards the original, by projections onto its linearisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.attacks.hyperplane import reach
from assay.attacks.lanes import Answer, Keeps, Lanes, Samples, lane_fields
from assay.attacks.losses import Loss, margin, target_lead, targeted_margin
from assay.attacks.success import succeeds
from assay.attacks.threat import Threat, column

_PULL = 0.1  # α_max: how strongly the original pulls
_OVERSHOOT = 1.05  # η
_BACKWARD = 0.9  # β: an adversarial image is moved back by this factor before the next step


@dataclass(eq=False)
class FabLanes(Lanes):
    """``fresh`` marks a candidate that was just moved; ``crossed`` that the last fresh one was misclassified."""

    fresh: Tensor
    crossed: Tensor


@dataclass(frozen=True)
class Fab:
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
    aimed: bool = False
    keeps: Keeps = "first"
    stays_inside: bool = False

    @property
    def loss(self) -> Loss:
        """z_t − z_y; z_t − max_{k≠t} z_k where t is a goal, for no other class will do."""
        if self.aimed:
            return target_lead
        return margin if self.rank is None else targeted_margin

    def begin(self, samples: Samples, threat: Threat) -> FabLanes:
        """The original itself."""
        fields = lane_fields(samples, candidate=samples.images, rank=self.rank)
        no = torch.zeros_like(samples.index, dtype=torch.bool)
        return FabLanes(**fields, fresh=no, crossed=no)

    def advance(self, lanes: FabLanes, answer: Answer, threat: Threat) -> FabLanes:
        """Pull back what crossed, ask for a gradient where one is missing, and move the rest."""
        crossed = lanes.fresh & succeeds(answer.logits, lanes)
        moves = ~crossed & lanes.wants_gradient
        lanes.crossed = torch.where(lanes.fresh, crossed, lanes.crossed)
        pulled = lanes.images + _BACKWARD * (lanes.candidate - lanes.images)
        candidate = torch.where(column(crossed), pulled, lanes.candidate)
        if bool(moves.any()):
            rows = moves.nonzero()[:, 0]
            candidate[rows] = self._move(lanes.take(rows), answer.take(rows), threat)
        lanes.candidate = candidate
        lanes.step = lanes.step + moves
        lanes.wants_gradient = ~(moves & lanes.crossed)
        lanes.fresh = moves
        return lanes

    def _move(self, lanes: FabLanes, answer: Answer, threat: Threat) -> Tensor:
        here, origin, normal = lanes.candidate.flatten(1), lanes.images.flatten(1), answer.gradient.flatten(1)
        away = answer.losses + ((origin - here) * normal).sum(dim=1)
        first = reach(here, normal, answer.losses, norm=threat.norm, box=threat.box)
        second = reach(origin, normal, away, norm=threat.norm, box=threat.box)
        distance = threat.geometry.distance
        a, b = (distance(d.reshape(lanes.images.shape)).clamp_min(1e-8) for d in (first, second))
        pull = (a / (a + b)).clamp_max(_PULL)[:, None]
        moved = (1 - pull) * (here + _OVERSHOOT * first) + pull * (origin + _OVERSHOOT * second)
        return threat.clip(moved).reshape(lanes.images.shape)
