"""Epochs that leave out part of what is learnt best already."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.runtime import generator
from assay.training.recipes import PruneOptions
from assay.training.sampling import Sampler

PRUNE_STREAM = 0x9A11


@dataclass(frozen=True)
class PrunedSampler(Sampler):
    """A :class:`Sampler` whose epochs may be shorter: see :class:`~assay.training.recipes.PruneOptions`.

    How many samples an epoch leaves out is known beforehand, so that the schedule is; which, only when it begins.
    """

    epochs: float
    options: PruneOptions

    def length(self, epoch: int) -> int:
        """The steps of ``epoch``."""
        whole = self.steps_per_epoch
        pruned = epoch > 0 and self.options.start <= epoch / self.epochs < self.options.end
        return max(1, round(whole * (1 - self.options.share))) if pruned else whole

    def first_step(self, epoch: int) -> int:
        """The step that ``epoch`` begins with."""
        return sum(self.length(earlier) for earlier in range(epoch))

    def steps(self, epochs: float) -> int:
        """Steps in ``epochs``, a fraction of one allowed; at least one."""
        part, whole = math.modf(epochs)
        return max(1, self.first_step(int(whole)) + round(part * self.length(int(whole))))

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that ``step`` is in."""
        epoch = 0
        while step >= (length := self.length(epoch)):
            step, epoch = step - length, epoch + 1
        return epoch

    def choose(self, losses: Tensor, *, epoch: int) -> Tensor | None:
        """bool (n,): whom ``epoch`` leaves out, given the ``losses`` (n,) last seen; None: nobody.

        A sample never seen counts as the hardest. What fills no batch is left out of every epoch, by chance.
        """
        spare = (self.steps_per_epoch - self.length(epoch)) * self.size
        if spare == 0:
            return None
        easiest = losses.argsort(stable=True)[: 2 * spare]
        drawn = torch.randperm(len(easiest), generator=generator(self.seed, PRUNE_STREAM, epoch))[:spare]
        left_out = torch.zeros(self.n, dtype=torch.bool)
        left_out[easiest[drawn]] = True
        return left_out
