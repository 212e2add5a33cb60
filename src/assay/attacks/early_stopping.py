"""When to give up on one sample: where even the pace of late would not carry it to the boundary in the steps left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WINDOWS = 10  # of equal length that a search is watched in; the first is left to find its feet
FLOOR = 0.05  # of all ground won so far: what a window is credited with at least, for progress comes in jumps


@dataclass(eq=False)
class EarlyStoppingByProgress:
    """How near each of N samples has come to the boundary in this search, as margins max_{k≠y} z_k − z_y below 0.

    At the end of a window a row with r windows left is hopeless if m + r·max(g, 0.05·G) < 0: m is its best margin, g
    what the last window won and G what all windows won. Searches slow down as they go, so this errs on the side of
    going on; a network that hides its gradient yields to the blind search at a pace that keeps that one going.
    """

    first: Tensor
    best: Tensor
    marked: Tensor
    steps: int

    @classmethod
    def open(cls, like: Tensor, *, steps: int) -> EarlyStoppingByProgress:
        """Nothing seen yet of as many samples as ``like`` (N,) has."""
        unseen = torch.full_like(like, -torch.inf)
        return cls(first=unseen.clone(), best=unseen.clone(), marked=unseen.clone(), steps=steps)

    def should_stop(self, index: Tensor, step: Tensor, margins: Tensor) -> Tensor:
        """Note the ``margins`` that the rows ``index`` (B,) have after ``step`` moves; bool (B,): whom to give up."""
        window = max(self.steps // WINDOWS, 1)
        unseen = self.first[index].isinf()
        self.first[index] = torch.where(unseen, margins, self.first[index])
        best = torch.maximum(self.best[index], margins)
        self.best[index] = best
        due = (step > 0) & (step % window == 0)
        if not bool(due.any()):
            return due
        won = best - self.marked[index]  # infinite in the first window
        credited = torch.maximum(won, FLOOR * (best - self.first[index]))
        left = (self.steps - step) / window
        self.marked[index] = torch.where(due, best, self.marked[index])
        return due & (best + left * credited < 0)


CONFIDENCE = 0.95
ROUNDS = 3  # without success: by the rule of three, −ln 0.05 ≈ 3, the next breaks at most one sample


@dataclass(eq=False)
class EarlyStoppingByYield:
    """Counts attempts, one sample attacked by one method, since the last that broke anything.

    After m attempts in a row without success the chance that the next one succeeds is, with 95 % confidence, at most
    1 − 0.05^(1/m) (the exact binomial bound for no success in m). Attempts are made nearest to the boundary first, so
    the rest are no easier. The attack ends when this bound times the samples still standing, the most that one more
    method is expected to break, is at most ``tolerance`` of all ``n`` samples; or, where that is less than one sample,
    after three attempts on every sample that stands.
    """

    tolerance: float
    n: int
    failures: int = 0

    def note(self, *, attempts: int, broken: int) -> None:
        """A block of attempts was made; any success starts the count anew."""
        self.failures = 0 if broken else self.failures + attempts

    def bound(self) -> float:
        """The 95 % upper bound on the chance of the next attempt."""
        return 1.0 if self.failures == 0 else float(1.0 - (1.0 - CONFIDENCE) ** (1.0 / self.failures))

    def should_stop(self, standing: int) -> bool:
        """Whether one more method is expected to break too few of the samples ``standing`` to be worth its cost."""
        return self.bound() * standing <= self.tolerance * self.n or self.failures >= ROUNDS * standing
