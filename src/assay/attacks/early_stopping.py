"""When an attack stops early: on one sample for lack of progress, on all of them for lack of successes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WINDOWS = 10  # of equal length in a search; none is stopped at the end of the first
MINIMUM_PROGRESS = 0.05  # of the total gain so far: what a window counts for at least, for progress comes in jumps


@dataclass(eq=False)
class EarlyStoppingByProgress:
    """Stops a sample when, at its recent rate of progress, it would not reach the decision boundary in the steps left.

    At the end of a window a row with r windows left stops if m + r·max(g, 0.05·G) < 0: m is its best margin
    max_{k≠y} z_k − z_y (below 0 while correct), g the gain of the last window and G the gain of all windows. Searches
    slow down as they go, so this errs on the side of going on; on a network that masks its gradients the black-box
    search gains at a rate that keeps it running.
    """

    first: Tensor  # (N,), each sample's first margin
    best: Tensor  # (N,), its best margin
    marked: Tensor  # (N,), its best margin at the end of the last window
    steps: int  # the length of the search

    @classmethod
    def start(cls, like: Tensor, *, steps: int) -> EarlyStoppingByProgress:
        """Nothing seen yet of as many samples as ``like`` (N,) has."""
        unseen = torch.full_like(like, -torch.inf)
        return cls(first=unseen.clone(), best=unseen.clone(), marked=unseen.clone(), steps=steps)

    def should_stop(self, index: Tensor, step: Tensor, margins: Tensor) -> Tensor:
        """Record the ``margins`` of the rows ``index`` (B,) after ``step`` updates; bool (B,): rows to stop."""
        window = max(self.steps // WINDOWS, 1)
        unseen = self.first[index].isinf()
        self.first[index] = torch.where(unseen, margins, self.first[index])
        best = torch.maximum(self.best[index], margins)
        self.best[index] = best
        due = (step > 0) & (step % window == 0)
        if not bool(due.any()):
            return due
        window_gain = best - self.marked[index]  # infinite in the first window
        expected_gain = torch.maximum(window_gain, MINIMUM_PROGRESS * (best - self.first[index]))
        windows_left = (self.steps - step) / window
        self.marked[index] = torch.where(due, best, self.marked[index])
        return due & (best + windows_left * expected_gain < 0)


CONFIDENCE = 0.95
ROUNDS = 3  # without success: by the rule of three, −ln 0.05 ≈ 3, the next breaks at most one sample


@dataclass(eq=False)
class EarlyStoppingByYield:
    """Stops an attack when one more method is expected to break too few samples.

    An attempt is one sample attacked by one method. After m attempts in a row without success the chance that the next
    one succeeds is, with 95 % confidence, at most 1 − 0.05^(1/m) (the exact binomial bound for no success in m).
    Attempts are made nearest to the boundary first, so the rest are no easier. The attack ends when this bound times
    the number of samples left, the most that one more method is expected to break, is at most ``tolerance`` of all
    ``n`` samples; or, where that is less than one sample, after three attempts on every sample left.
    """

    tolerance: float
    n: int
    failures: int = 0

    def update(self, *, attempts: int, broken: int) -> None:
        """Count a block of attempts; any success starts the count anew."""
        self.failures = 0 if broken else self.failures + attempts

    def success_rate_bound(self) -> float:
        """The 95 % upper bound on the success rate of the next attempt."""
        return 1.0 if self.failures == 0 else float(1.0 - (1.0 - CONFIDENCE) ** (1.0 / self.failures))

    def should_stop(self, left: int) -> bool:
        """Whether one more method is expected to break too few of the ``left`` samples to be worth its cost."""
        return self.success_rate_bound() * left <= self.tolerance * self.n or self.failures >= ROUNDS * left
