"""The smallest change that carries a point onto a hyperplane without leaving the box.

min ‖d‖ₚ subject to ⟨w, d⟩ = −c and low ≤ x + d ≤ high, for each row of (B, D). Let every coordinate travel against the
sign of c·w, at most mᵢ, to its wall. Then d is dᵢ = min(λ, mᵢ) for L∞ and min(λ|wᵢ|, mᵢ) for L2, and λ solves
Σᵢ|wᵢ|dᵢ(λ) = |c|; for L1 the coordinates of the largest |wᵢ| travel to their walls until |c| is spent. Where all of
them at their walls do not reach the plane, d is that corner. Croce & Hein 2020 (FAB), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from assay.records.attack import Norm

Solve = Callable[[Tensor, Tensor, Tensor], Tensor]  # |w|, travel, |c| to the length of each coordinate's travel
_ITERATIONS = 60


def reach(points: Tensor, normals: Tensor, offsets: Tensor, *, norm: Norm, box: tuple[float, float]) -> Tensor:
    """d (B, D) for points x (B, D), normals w (B, D) and offsets c (B,), ⟨w, x⟩ minus the plane's constant."""
    heading = -torch.where(offsets >= 0, 1.0, -1.0)[:, None] * normals.sign()
    travel = torch.where(heading < 0, points - box[0], box[1] - points).clamp_min(0.0)
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
