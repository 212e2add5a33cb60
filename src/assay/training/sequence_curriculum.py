"""Sequences to train on: drawn anew at every step, with the loss of their task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from assay.data.sequences import TRAIN, SequenceTask
from assay.errors import OptionError
from assay.runtime import device_of
from assay.training.curriculum import Curriculum
from assay.training.distributed import Processes
from assay.training.recipes import Recipe
from assay.training.sampling import Sampler
from assay.training.step import Lesson, autocast_dtype

if TYPE_CHECKING:
    from assay.training.checkpoint import RunState


class SequenceCurriculum(Curriculum):
    """Batches of ``task``; ``recipe.sequence.samples`` of them, all different, are an epoch.

    No loss is too high to go on from: an identity recurrence starts far above its baseline and comes down.
    Raises :class:`OptionError` for a recipe that asks for what only images have.
    """

    samples = "sequences"

    def __init__(self, task: SequenceTask, recipe: Recipe, *, seed: int, processes: Processes) -> None:
        _check_no_images(task, recipe)
        super().__init__(Sampler(recipe.sequence.samples, recipe.batch_size, seed), epochs=recipe.epochs)
        self.name = task.name
        self.loss_unit = task.loss_unit
        self.facts = {"name": task.name, "split": "train", "n": self.n, "seed": task.seed, **task.shape}
        self._task, self._processes = task, processes
        self._micro_batch, self._autocast = recipe.micro_batch, autocast_dtype(recipe.precision)

    def lessons(self, step: int, state: RunState) -> Sequence[tuple[int, Lesson]]:
        """Micro-batches of the sequences drawn for this step."""
        with state.clock.part("images"):
            inputs, targets = self._task.draw(self.batch_size, TRAIN, step)
        size = self._micro_batch or self.batch_size
        pieces = list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))
        mine = range(self._processes.rank, len(pieces), self._processes.world)
        return [(number, partial(self._learn, inputs=pieces[number][0], targets=pieces[number][1])) for number in mine]

    def finish(self, model: nn.Module) -> None:
        """Nothing."""

    def _learn(self, model: nn.Module, *, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        device = device_of(model)
        inputs, targets = inputs.to(device), targets.to(device)
        with torch.autocast(device.type, dtype=self._autocast, enabled=self._autocast is not None):
            output = model(inputs)
        output = output.float()
        return self._task.loss(output, targets) * len(inputs), self._task.right(output.detach(), targets).sum()


def _check_no_images(task: SequenceTask, recipe: Recipe) -> None:
    asked = {
        "augment.name": (recipe.augment.name, "none"),
        "adversary.name": (recipe.adversary.name, "none"),
        "mix.name": (recipe.mix.name, "none"),
        "prune.share": (recipe.prune.share, 0.0),
        "resolution": (recipe.resolution, ()),
        "label_smoothing": (recipe.label_smoothing, 0.0),
        "refresh_batchnorm": (recipe.refresh_batchnorm, 0),
        "test_views": (recipe.test_views, 1),
    }
    for field, (got, without) in asked.items():
        if got != without:
            raise OptionError(
                f"recipe {recipe.name}: {field}",
                expected=f"{without or 'none of it'}: {task.name} is a task of sequences, not of images",
                got=got,
            )
