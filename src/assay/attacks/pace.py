"""When to give up on one sample: where even the pace of late would not carry it to the boundary in the steps left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WINDOWS = 10  # of equal length that a search is watched in; the first is left to find its feet
FLOOR = 0.05  # of all ground won so far: what a window is credited with at least, for progress comes in jumps


@dataclass(eq=False)
class Pace:
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
    def open(cls, like: Tensor, *, steps: int) -> Pace:
        """Nothing seen yet of as many samples as ``like`` (N,) has."""
        unseen = torch.full_like(like, -torch.inf)
        return cls(first=unseen.clone(), best=unseen.clone(), marked=unseen.clone(), steps=steps)

    def hopeless(self, index: Tensor, step: Tensor, margins: Tensor) -> Tensor:
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
