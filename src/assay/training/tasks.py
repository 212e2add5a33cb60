"""Labelled images to train on: augmented, perturbed and mixed, cross-entropy of the classes."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset
from assay.data.sequences import TRAIN, SequenceTask
from assay.errors import OptionError
from assay.evaluate import preferred_layout
from assay.runtime import device_of, preserved
from assay.runtime.processes import Processes
from assay.training.adversaries import GuardedAdversary
from assay.training.augmentation import View, build_augmentation, build_mix, choose_side
from assay.training.averaging import refresh_batchnorm
from assay.training.objective import Loss, Objective, Perturb, learn_images
from assay.training.recipes import Recipe
from assay.training.sampling import PrunedSampler, Sampler, micro_batches
from assay.training.step import Lesson, autocast_dtype

if TYPE_CHECKING:
    from assay.training.checkpoint import RunState


class Curriculum(ABC):
    """The steps of one run: a pure function of (recipe, data, seed, step), the same for every number of processes.

    ``name``       what the data is called
    ``facts``      what ``config.json`` says of it; a run resumes only where they are equal
    ``samples``    what one sample is
    ``loss_unit``  what the loss is measured in
    ``ceiling``    a loss above it is divergence as well as one that is not finite
    """

    samples: ClassVar[Literal["images", "sequences"]]
    name: str
    facts: dict[str, Any]
    loss_unit: str = "nats"
    ceiling: float = math.inf

    def __init__(self, sampler: Sampler, *, epochs: float) -> None:
        self._sampler = sampler
        self.steps = sampler.steps(epochs)

    @property
    def n(self) -> int:
        """Samples in an epoch."""
        return self._sampler.n

    @property
    def batch_size(self) -> int:
        """Samples of a step, over all processes."""
        return self._sampler.size

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that ``step`` is in."""
        return self._sampler.epoch(step)

    def closes_epoch(self, step: int) -> bool:
        """Is it the last step of its epoch, or of the run?"""
        return step + 1 == self.steps or self.epoch(step + 1) != self.epoch(step)

    @abstractmethod
    def lessons(self, step: int, state: RunState) -> Sequence[tuple[int, Lesson]]:
        """This process's micro-batches of ``step``, each with its number in the whole batch."""

    def remember(self, step: int, state: RunState) -> None:
        """After the lessons of ``step``: keep in ``state`` what later steps are chosen by."""
        return

    def review(self, model: nn.Module, state: RunState, *, epoch: int) -> dict[str, object] | None:
        """After an epoch: a look at what may have gone wrong, for the log; may change ``state``."""
        return None

    @abstractmethod
    def finish(self, model: nn.Module) -> None:
        """Whatever the weights to keep still need."""


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
        super().__init__(_build_sampler(recipe, n=len(train), seed=seed, loss=loss), epochs=recipe.epochs)
        self.name = train.name
        self.facts = describe_images(train)
        self.ceiling = 100 * math.log(len(train.classes))  # a hundred times the loss of guessing
        self._train, self._recipe, self._seed, self._processes = train, recipe, seed, processes
        self._augment = build_augmentation(recipe.augment)
        self._adversary = GuardedAdversary(recipe.adversary, train, seed=seed, own=perturb)
        self._mix, self._loss = build_mix(recipe.mix), loss
        self._losses = torch.zeros(self.batch_size)  # of this step's samples, those of other processes 0
        with preserved(model, training=False):
            self._layout = preferred_layout(model, train)
        model.to(memory_format=self._layout)

    def lessons(self, step: int, state: RunState) -> Sequence[tuple[int, Lesson]]:
        """Micro-batches of the samples whose turn it is."""
        recipe, processes = self._recipe, self._processes
        with state.clock.part("images"):
            pieces = micro_batches(
                self._train,
                self._sampler.indices(step, left_out=state.left_out),
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
        self._losses.zero_()
        watched = isinstance(self._sampler, PrunedSampler)
        return [
            (number, partial(learn, batch=batch, note=partial(self._note, number) if watched else None))
            for number, batch in pieces
        ]

    def remember(self, step: int, state: RunState) -> None:
        """Keep the losses of the samples of ``step``, where the recipe prunes by them."""
        if not isinstance(self._sampler, PrunedSampler):
            return
        if state.losses is None:
            state.losses = torch.full((self.n,), torch.inf)
        seen = self._processes.sum_tensor(self._losses)
        state.losses[self._sampler.indices(step, left_out=state.left_out)] = seen

    def review(self, model: nn.Module, state: RunState, *, epoch: int) -> dict[str, object] | None:
        """Has the recipe's adversary failed, now or before? Watched in the precision that is trained in.

        Then whom the next epoch leaves out.
        """
        autocast = autocast_dtype(self._recipe.precision)
        with torch.autocast(device_of(model).type, dtype=autocast, enabled=autocast is not None):
            seen = self._adversary.watch(model, epoch=epoch)
        state.fallen_back = state.fallen_back or self._adversary.has_failed(seen)
        if isinstance(self._sampler, PrunedSampler) and state.losses is not None:
            state.left_out = self._sampler.choose(state.losses, epoch=epoch + 1)
        return None if seen is None else asdict(seen)

    def finish(self, model: nn.Module) -> None:
        """Running statistics become those of the weights that are kept."""
        if self._recipe.refresh_batchnorm:
            refresh_batchnorm(model, self._train, samples=self._recipe.refresh_batchnorm)

    def _note(self, number: int, losses: Tensor) -> None:
        """The losses (B,) of the micro-batch of that ``number``, relative to their mean: the network moves on."""
        start = number * (self._recipe.micro_batch or self.batch_size)
        self._losses[start : start + len(losses)] = (losses - losses.mean()).cpu()


def _build_sampler(recipe: Recipe, *, n: int, seed: int, loss: Loss | None) -> Sampler:
    """Raises :class:`OptionError` for a recipe that prunes by a cross-entropy that nobody computes."""
    if not recipe.prune.share:
        return Sampler(n, recipe.batch_size, seed)
    if loss is not None:
        raise OptionError("prune.share", expected="0 where the loss is your own", got=recipe.prune.share)
    return PrunedSampler(n, recipe.batch_size, seed, recipe.epochs, recipe.prune)


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
