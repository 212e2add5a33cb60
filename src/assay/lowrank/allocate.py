"""Which layer gets which rank: the least expected harm within a budget of FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Choice:
    """One way to run one layer: its cost in FLOPs and the harm it is expected to do."""

    label: object
    cost: int
    harm: float


def allocate(choices: Sequence[Sequence[Choice]], *, budget: int, steps: int = 4000) -> tuple[Choice, ...] | None:
    """One choice for each layer, with Σ cost ≤ ``budget`` and the least Σ harm; None when the budget cannot be met.

    Dynamic programming over the budget in ``steps`` equal parts, costs rounded up, so the budget is never exceeded.
    """
    if budget < 0:
        return None
    parts = max(1, min(budget, steps))
    unit = max(budget, 1) / parts  # a choice that costs the whole budget is exactly all the parts
    width = parts + 1
    best = np.zeros(width)
    taken: list[np.ndarray] = []
    for options in choices:
        reached = np.full(width, np.inf)
        chosen = np.full(width, -1)
        for place, option in enumerate(options):
            units = _parts(option.cost, unit)
            if units >= width:
                continue
            candidate = np.full(width, np.inf)
            candidate[units:] = best[: width - units] + option.harm
            better = candidate < reached
            reached[better], chosen[better] = candidate[better], place
        best = reached
        taken.append(chosen)
    if not np.isfinite(best[-1]):
        # costs were rounded up: the cheapest of all may fit all the same
        cheapest = tuple(min(options, key=lambda option: option.cost) for options in choices)
        return cheapest if sum(option.cost for option in cheapest) <= budget else None
    left = int(np.argmin(best))
    found: list[Choice] = []
    for options, chosen in zip(reversed(choices), reversed(taken), strict=True):
        option = options[int(chosen[left])]
        found.append(option)
        left -= _parts(option.cost, unit)
    return tuple(reversed(found))


def _parts(cost: int, unit: float) -> int:
    return math.ceil(cost / unit - 1e-9)
