"""Other ways to hand a model the same pictures, tested in pairs; one that cannot win any more gets no more pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assay.comparison.statistics import holm
from assay.records.accuracy import wilson_interval
from assay.records.configuration import SIGNIFICANT
from assay.runtime import generator

FIRST = 64  # pictures after which it is asked for the first time whether a way can still win
CHANCE = 0.01  # of a significant gain in the end, below which a way is given up
ORDER_STREAM = 0xA17


@dataclass(frozen=True)
class Alternative:
    """Of ``n`` pictures ``correct`` were right in this way; ``gained`` became right by it and ``lost`` wrong.

    ``p_value`` is the chance of such a gain without a cause, with Holm's correction for how many ways were tried.
    """

    correct: int
    n: int
    gained: int
    lost: int
    p_value: float

    @property
    def counts(self) -> dict[str, Any]:
        """The fields of a record beside the proportion."""
        return {"gained": self.gained, "lost": self.lost, "p_value": self.p_value}


def try_alternatives(
    names: Collection[str], right_under: Callable[[str, Tensor], Tensor], *, before: Tensor
) -> dict[str, Alternative]:
    """What becomes of the pictures, right ``before`` or not, bool (N,), under each of ``names``.

    ``right_under(name, rows)`` tells which of the pictures ``rows`` int64 (B,) are right under a way. All ways get the
    same pictures in the same random order: 64, then twice as many, until all had N or cannot win any more.
    """
    n = len(before)
    order = torch.randperm(n, generator=generator(0, ORDER_STREAM)) if n > FIRST else torch.arange(n)
    after: dict[str, list[Tensor]] = {name: [] for name in names}
    start, open_ones = 0, list(names)
    while start < n and open_ones:
        stop = min(n, max(FIRST, 2 * start))
        rows = order[start:stop].sort().values
        order[start:stop] = rows
        for name in open_ones:
            after[name].append(right_under(name, rows))
        start = stop
        open_ones = [
            name
            for name in open_ones
            if can_win(*_changes(before[order], torch.cat(after[name])), seen=stop, n=n, tried=len(names))
        ]
    outcomes = {name: torch.cat(parts) for name, parts in after.items()}
    changes = {name: _changes(before[order], right) for name, right in outcomes.items()}
    adjusted = holm([chance_of_gain(*change) for change in changes.values()])
    return {
        name: Alternative(int(right.sum()), len(right), *changes[name], p_value=p)
        for (name, right), p in zip(outcomes.items(), adjusted, strict=True)
    }


def _changes(before: Tensor, after: Tensor) -> tuple[int, int]:
    """How many of the pictures seen became right, and how many wrong."""
    first = before[: len(after)]
    return int((after & ~first).sum()), int((first & ~after).sum())


def can_win(gained: int, lost: int, *, seen: int, n: int, tried: int) -> bool:
    """Whether a significant gain over all ``n`` pictures is still to be reckoned with after ``seen`` of them.

    It is where its chance is at least 1 %, though the share of changed pictures and that of gains among them be at the
    upper ends of their 95 % intervals.
    """
    if seen >= n:
        return False
    changed = gained + lost
    rest = round(wilson_interval(changed, seen)[1] * (n - seen))
    share = wilson_interval(gained, changed)[1] if changed else 1.0
    total, low, high = changed + rest, gained, gained + rest + 1
    while low < high:  # the least number of gains that is significant
        middle = (low + high) // 2
        if chance_of_gain(middle, total - middle) < SIGNIFICANT / tried:
            high = middle
        else:
            low = middle + 1
    return _tail(low - gained, rest, share) >= CHANCE


def chance_of_gain(gained: int, lost: int) -> float:
    """The one-sided p-value of McNemar's exact test: of at least ``gained`` of the changed samples by chance."""
    changed = gained + lost
    return float(sum(math.comb(changed, count) for count in range(gained, changed + 1)) / 2**changed)


def _tail(least: int, n: int, share: float) -> float:
    """The chance of ``least`` or more among ``n``, each with the chance ``share``."""
    if least <= 0:
        return 1.0
    if share >= 1.0:
        return float(least <= n)
    logs = (math.log(math.comb(n, k)) + k * math.log(share) + (n - k) * math.log1p(-share) for k in range(least, n + 1))
    return sum(map(math.exp, logs))
