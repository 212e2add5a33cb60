"""Which samples a step trains on: a pure function of (seed, step), the same for every number of processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from assay.data.dataset import Batch, ImageDataset
from assay.runtime import generator
from assay.training.sections import PruneOptions

ORDER_STREAM = 0x0DE


@dataclass(frozen=True)
class Sampler:
    """Every epoch a fresh order of ``n`` samples, cut into batches; what does not fill the last batch is left out.

    A set smaller than one batch is one batch.
    """

    n: int
    batch_size: int
    seed: int

    @property
    def size(self) -> int:
        return min(self.batch_size, self.n)

    @property
    def steps_per_epoch(self) -> int:
        return self.n // self.size

    def steps(self, epochs: float) -> int:
        """Steps in ``epochs``, a fraction of one allowed; at least one."""
        return max(1, round(epochs * self.steps_per_epoch))

    def epoch(self, step: int) -> int:
        """Counted from 0."""
        return step // self.steps_per_epoch

    def indices(self, step: int, *, left_out: Tensor | None = None) -> Tensor:
        """int64 (B,): the places in the data set of the samples of ``step``; none of those ``left_out``, bool (n,)."""
        epoch = self.epoch(step)
        order = _order(self.n, self.seed, epoch)
        if left_out is not None:
            order = order[~left_out[order]]
        position = step - self.first_step(epoch)
        return order[position * self.size : (position + 1) * self.size]

    def first_step(self, epoch: int) -> int:
        return epoch * self.steps_per_epoch


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, ORDER_STREAM, epoch))


def split_evenly(batch: Tensor, size: int | None) -> tuple[Tensor, ...]:
    """Micro-batches of at most ``size``, which differ by one at most: a rest of one is no batch for a norm layer."""
    return torch.tensor_split(batch, math.ceil(len(batch) / (size or len(batch))))


def split_batch(
    dataset: ImageDataset, indices: Tensor, size: int | None, rank: int = 0, world: int = 1
) -> list[tuple[int, Batch]]:
    """The (number, samples) pairs of one process: every ``world``-th of the micro-batches of ``size``."""
    pieces = list(enumerate(split_evenly(indices, size)))[rank::world]
    return [(number, Batch(dataset.images[i], dataset.labels[i], dataset.ids[i])) for number, i in pieces]


PRUNE_STREAM = 0x9A11


@dataclass(frozen=True)
class PrunedSampler(Sampler):
    """A :class:`Sampler` whose epochs may be shorter: see :class:`~assay.training.sections.PruneOptions`.

    How many samples an epoch leaves out is known beforehand, so that the schedule is; which, only when it begins.
    """

    epochs: float
    options: PruneOptions

    def length(self, epoch: int) -> int:
        """Steps of ``epoch``."""
        steps = self.steps_per_epoch
        pruned = epoch > 0 and self.options.start <= epoch / self.epochs < self.options.end
        return max(1, round(steps * (1 - self.options.share))) if pruned else steps

    @property
    def prunes(self) -> bool:
        """Whether any epoch of the run is shorter than the first."""
        return any(self.length(epoch) < self.steps_per_epoch for epoch in range(1, math.ceil(self.epochs)))

    def first_step(self, epoch: int) -> int:
        return sum(self.length(earlier) for earlier in range(epoch))

    def steps(self, epochs: float) -> int:
        fraction, complete = math.modf(epochs)
        return max(1, self.first_step(int(complete)) + round(fraction * self.length(int(complete))))

    def epoch(self, step: int) -> int:
        epoch = 0
        while step >= (length := self.length(epoch)):
            step, epoch = step - length, epoch + 1
        return epoch

    def choose(self, losses: Tensor, *, epoch: int) -> Tensor | None:
        """bool (n,): the samples that ``epoch`` leaves out, given their last ``losses`` (n,); None: none of them.

        A sample never seen counts as the hardest. What does not fill a batch is left out of every epoch, at random.
        """
        spare = (self.steps_per_epoch - self.length(epoch)) * self.size
        if spare == 0:
            return None
        easiest = losses.argsort(stable=True)[: 2 * spare]
        drawn = torch.randperm(len(easiest), generator=generator(self.seed, PRUNE_STREAM, epoch))[:spare]
        left_out = torch.zeros(self.n, dtype=torch.bool)
        left_out[easiest[drawn]] = True
        return left_out
