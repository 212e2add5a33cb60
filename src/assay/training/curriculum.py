"""What a step trains on: which samples, in which pieces, seen how. A pure function of (recipe, seed, step)."""

from __future__ import annotations

from dataclasses import dataclass

from assay.augment.policies import Augmentation
from assay.data.dataset import Batch, ImageDataset
from assay.training.distributed import Processes
from assay.training.recipes import Recipe
from assay.training.sampling import Sampler, micro_batches
from assay.training.views import View, build_augmentation, choose_side


@dataclass(frozen=True)
class Curriculum:
    """The steps of one run of ``recipe`` over ``train``; build it with :meth:`of`."""

    train: ImageDataset
    recipe: Recipe
    seed: int
    processes: Processes
    sampler: Sampler
    augment: Augmentation | None

    @classmethod
    def of(cls, train: ImageDataset, recipe: Recipe, *, seed: int, processes: Processes) -> Curriculum:
        """Raises :class:`OptionError` for a policy that cannot be read."""
        sampler = Sampler(len(train), recipe.batch_size, seed)
        return cls(train, recipe, seed, processes, sampler, build_augmentation(recipe.augment))

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.sampler.steps(self.recipe.epochs)

    @property
    def batch_size(self) -> int:
        """Samples of a step, over all processes."""
        return self.sampler.size

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that ``step`` is in."""
        return self.sampler.epoch(step)

    def closes_epoch(self, step: int) -> bool:
        """Is it the last step of its epoch, or of the run?"""
        return step + 1 == self.steps or self.epoch(step + 1) != self.epoch(step)

    def pieces(self, step: int) -> list[tuple[int, Batch]]:
        """This process's numbered micro-batches."""
        rank, world = self.processes.rank, self.processes.world
        size = self.recipe.micro_batch
        return micro_batches(self.train, self.sampler.indices(step), size=size, rank=rank, world=world)

    def view(self, step: int) -> View:
        """What their images go through."""
        side = choose_side(self.recipe.resolution, progress=step / self.steps)
        return View(self.augment, side, self.seed, self.epoch(step), self.recipe.shrink)
