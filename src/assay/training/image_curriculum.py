"""Labelled images to train on: augmented, perturbed and mixed, cross-entropy of the classes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from assay.data.dataset import ImageDataset
from assay.evaluate import preferred_layout
from assay.runtime import device_of, preserved
from assay.training.batchnorm import refresh_batchnorm
from assay.training.curriculum import Curriculum
from assay.training.distributed import Processes
from assay.training.mixing import build_mix
from assay.training.objective import Loss, Objective, Perturb, learn_images
from assay.training.overfitting import GuardedAdversary
from assay.training.recipes import Recipe
from assay.training.sampling import Sampler, micro_batches
from assay.training.step import Lesson, autocast_dtype
from assay.training.views import View, build_augmentation, choose_side

if TYPE_CHECKING:
    from assay.training.checkpoint import RunState


class ImageCurriculum(Curriculum):
    """Every epoch a fresh order of ``train``, each image seen as ``recipe`` says.

    ``model`` moves to the memory layout that is fastest for it. Raises :class:`OptionError` for a policy that cannot
    be read, :class:`ModelError` for a model that cannot take the images.
    """

    samples = "images"

    def __init__(
        self,
        model: nn.Module,
        train: ImageDataset,
        recipe: Recipe,
        *,
        seed: int,
        processes: Processes,
        perturb: Perturb | None,
        loss: Loss | None,
    ) -> None:
        super().__init__(Sampler(len(train), recipe.batch_size, seed), epochs=recipe.epochs)
        self.name = train.name
        self.facts = describe_images(train)
        self.ceiling = 100 * math.log(len(train.classes))  # a hundred times the loss of guessing
        self._train, self._recipe, self._seed, self._processes = train, recipe, seed, processes
        self._augment = build_augmentation(recipe.augment)
        self._adversary = GuardedAdversary(recipe.adversary, train, seed=seed, own=perturb)
        self._mix, self._loss = build_mix(recipe.mix), loss
        with preserved(model, training=False):
            self._layout = preferred_layout(model, train)
        model.to(memory_format=self._layout)

    def lessons(self, step: int, state: RunState) -> Sequence[tuple[int, Lesson]]:
        """Micro-batches of the samples whose turn it is."""
        recipe, processes = self._recipe, self._processes
        with state.clock.part("images"):
            pieces = micro_batches(
                self._train,
                self._sampler.indices(step),
                size=recipe.micro_batch,
                rank=processes.rank,
                world=processes.world,
            )
        attack = self._adversary.perturb(fallen_back=state.fallen_back, clock=state.clock)
        objective = Objective(
            len(self._train.classes),
            recipe.label_smoothing,
            attack,
            self._mix,
            autocast_dtype(recipe.precision),
            self._loss,
        )
        side = choose_side(recipe.resolution, progress=step / self.steps)
        view = View(self._augment, side, self._seed, self.epoch(step), recipe.shrink)
        prepare = state.clock.timed("images", view)
        learn = partial(learn_images, objective=objective, prepare=prepare, layout=self._layout)
        return [(number, partial(learn, batch=batch)) for number, batch in pieces]

    def review(self, model: nn.Module, state: RunState, *, epoch: int) -> dict[str, object] | None:
        """Has the recipe's adversary failed, now or before? Watched in the precision that is trained in."""
        autocast = autocast_dtype(self._recipe.precision)
        with torch.autocast(device_of(model).type, dtype=autocast, enabled=autocast is not None):
            seen = self._adversary.watch(model, epoch=epoch)
        state.fallen_back = state.fallen_back or self._adversary.has_failed(seen)
        return None if seen is None else asdict(seen)

    def finish(self, model: nn.Module) -> None:
        """Running statistics become those of the weights that are kept."""
        if self._recipe.refresh_batchnorm:
            refresh_batchnorm(model, self._train, samples=self._recipe.refresh_batchnorm)


def describe_images(train: ImageDataset) -> dict[str, Any]:
    """The data by name, size, shape, classes and a checksum of all its bytes."""
    checksum = 0
    for tensor in (train.images, train.labels, train.ids):
        checksum = zlib.crc32(tensor.contiguous().numpy().data, checksum)
    return {
        "name": train.name,
        "split": train.split,
        "n": len(train),
        "image_shape": list(train.shape),
        "classes": list(train.classes),
        "checksum": checksum,
    }
