"""Work divided among measurements so that it fits into a wall time: what an image costs, and how many each gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TRIALS = (2, 8, 32)  # images that a measurement is timed on, one after the other; the first also warms up
TRIAL_SHARE = 0.1  # of a wall time, to time measurements with
SLACK = 0.05  # of a wall time: by how much it may be exceeded before a measurement is left out


@dataclass(frozen=True)
class Cost:
    """Seconds of a stage: ``fixed``, and ``each`` for an image."""

    fixed: float = 0.0
    each: float = 0.0

    def seconds(self, n: int) -> float:
        return self.fixed + self.each * n

    def times(self, factor: float) -> Cost:
        return Cost(self.fixed * factor, self.each * factor)


@dataclass(frozen=True)
class Share:
    """A stage that is to be given images: its cost, its weight, and the fewest and most it takes."""

    name: str
    cost: Cost
    weight: float
    least: int
    most: int
    required: bool = False


def allocate(shares: Sequence[Share], seconds: float, *, slack: float = 0.0) -> dict[str, int]:
    """Images for each stage, such that the weighted sum of the variances is least; 0 for those that do not fit.

    The variance of a share among n images falls with 1/n, so n is in proportion to √(weight / cost of an image) between
    the fewest and the most: Neyman's allocation with costs (Cochran 1977, *Sampling Techniques*, section 5.5). Where
    not even the fewest fit, with ``slack`` seconds more, those are left out whose fewest take longest for their weight.
    """
    taken = _choose(shares, seconds + slack)

    def images(scale: float) -> dict[str, int]:
        return {
            share.name: min(
                share.most, max(share.least, int(scale * (share.weight / max(share.cost.each, 1e-9)) ** 0.5))
            )
            for share in taken
        }

    def total(scale: float) -> float:
        chosen = images(scale)
        return sum(share.cost.seconds(chosen[share.name]) for share in taken)

    low, high = 0.0, 1e12
    if total(high) <= seconds:
        low = high
    for _ in range(100 if low < high else 0):
        middle = (low * high) ** 0.5 if low > 0 else high * 1e-24
        low, high = (middle, high) if total(middle) <= seconds else (low, middle)
    return {share.name: 0 for share in shares} | images(low)


def _choose(shares: Sequence[Share], seconds: float) -> list[Share]:
    """Those that are required, and of the others those that fit, the least time for their weight first."""
    ranked = sorted(shares, key=lambda share: (not share.required, share.cost.seconds(share.least) / share.weight))
    taken: list[Share] = []
    for share in ranked:
        seconds -= share.cost.seconds(share.least)
        if seconds >= 0 or share.required:
            taken.append(share)
        else:
            seconds += share.cost.seconds(share.least)
    return taken


def measure_cost(run: Callable[[int], object], *, most: int, seconds: float) -> Cost:
    """The cost of ``run(n)``, which measures n images, from trials on few; the first is made in any case.

    Another is begun only while it is expected to end within ``seconds`` in all. What ``run`` raises is passed on.
    """
    trials: list[tuple[int, float]] = []
    left = seconds
    for images in TRIALS:
        n = min(images, most)
        if trials and (n == trials[-1][0] or n / trials[-1][0] * trials[-1][1] > left):
            break
        started = time.perf_counter()
        run(n)
        trials.append((n, time.perf_counter() - started))
        left -= trials[-1][1]
    n, took = trials[-1]
    if len(trials) > 2 and took > trials[-2][1]:
        each = (took - trials[-2][1]) / (n - trials[-2][0])
        return Cost(fixed=max(0.0, took - each * n), each=each)
    return Cost(each=took / n)
