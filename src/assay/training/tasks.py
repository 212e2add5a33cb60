"""What a run trains on: images or sequences, cut into micro-batches that give losses."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.sequences import TRAIN, SequenceTask
from assay.errors import ModelError, OptionError, UnusedOptionError
from assay.models.calls import calling, refusing
from assay.models.outputs import Outputs
from assay.runtime import device_of
from assay.runtime.processes import Processes
from assay.training.adversaries import GuardedAdversary
from assay.training.augmentation import View, build_augmentation, build_mix, choose_side
from assay.training.averaging import refresh_batchnorm
from assay.training.recipes import Recipe
from assay.training.sampling import PrunedSampler, Sampler, split_batch, split_evenly
from assay.training.sections import SequenceOptions
from assay.training.step import (
    MicroBatch,
    Objective,
    Perturb,
    TrainingLoss,
    autocast,
    auxiliary_weight,
    image_losses,
)
from assay.training.trial import try_step

if TYPE_CHECKING:
    from assay.training.checkpoint import RunState


class TrainingTask(ABC):
    """The steps of one run: a pure function of (recipe, data, seed, step), the same for every number of processes.

    Attributes:
        samples: what one sample is.
        steps, n, batch_size: optimizer steps of the run; samples in an epoch; samples of a step, over all processes.
        share: how much of a step's samples this process trains on.
        epoch: (step) -> the epoch, from 0, that it is in.
        name: what the data is called.
        facts: the data as ``config.json`` describes it; a run resumes only where they are equal.
        loss_unit: the unit of the loss.
        ceiling: a loss above it is divergence as well as one that is not finite.
        notes: what a reader should know of how the model is called.
    """

    samples: ClassVar[Literal["images", "sequences"]]
    share: float
    name: str
    facts: dict[str, Any]
    loss_unit: str = "nats"
    ceiling: float = math.inf
    notes: tuple[str, ...] = ()

    def __init__(self, sampler: Sampler, recipe: Recipe, processes: Processes) -> None:
        self._sampler = sampler
        self.steps, self.epoch = sampler.steps(recipe.epochs), sampler.epoch
        self.n, self.batch_size = sampler.n, sampler.size
        pieces = split_evenly(torch.arange(self.batch_size), recipe.micro_batch)
        self.share = sum(map(len, pieces[processes.rank :: processes.world])) / self.batch_size

    def closes_epoch(self, step: int) -> bool:
        """Is it the last step of its epoch, or of the run?"""
        return step + 1 == self.steps or self.epoch(step + 1) != self.epoch(step)

    @abstractmethod
    def micro_batches(self, step: int, state: RunState) -> Sequence[tuple[int, MicroBatch]]:
        """This process's micro-batches of ``step``, each with its number in the global batch."""

    @abstractmethod
    def trials(self) -> Iterator[tuple[tuple[int, ...], MicroBatch]]:
        """For each shape of input that the run will have: that shape, and the plain loss of a micro-batch of it."""

    def keep_losses(self, step: int, state: RunState) -> None:
        """After the gradient of ``step``: keep in ``state`` the losses that later steps choose their samples by."""
        return

    def after_epoch(self, model: nn.Module, state: RunState, *, epoch: int) -> dict[str, object] | None:
        """Update ``state`` after an epoch; returns the accuracies by which an adversary is monitored, for the log."""
        return None

    def finish(self, model: nn.Module) -> list[str]:
        """Evaluation mode, no gradients, and whatever the weights to keep still need. Returns what failed."""
        model.zero_grad(set_to_none=True)
        model.eval()
        return []


def build_task(
    model: nn.Module,
    train: ImageDataset | SequenceTask,
    recipe: Recipe,
    *,
    seed: int,
    processes: Processes,
    perturb: Perturb | None,
    loss: TrainingLoss | None,
) -> TrainingTask:
    """The task for either kind of data, once ``model`` has proved that it can be trained on it.

    Raises :class:`OptionError` for what that kind of data does not have, :class:`ModelError` as :func:`try_step` does.
    """
    task: TrainingTask
    if isinstance(train, ImageDataset):
        task = ImageTask(model, train, recipe, seed=seed, processes=processes, perturb=perturb, loss=loss)
    else:
        for name, given in (("perturb", perturb), ("loss", loss)):
            if given is not None:
                expected = f"None: {train.name} is no set of images and has its own loss"
                raise OptionError(name, expected=expected, got=given)
        task = SequenceTrainingTask(train, recipe, seed=seed, processes=processes)
    if any(parameter.requires_grad for parameter in model.parameters()):
        try_step(model, task.trials())
    return task


class ImageTask(TrainingTask):
    """Every epoch a fresh order of ``train``, each image augmented, perturbed and mixed by ``recipe``.

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
        loss: TrainingLoss | None,
    ) -> None:
        sampler = Sampler(len(train), recipe.batch_size, seed)
        if recipe.prune.share:
            if loss is not None:  # then no cross-entropy is computed
                raise OptionError("prune.share", expected="0 where the loss is your own", got=recipe.prune.share)
            sampler = PrunedSampler(len(train), recipe.batch_size, seed, recipe.epochs, recipe.prune)
        for option, reason in _without_effect(recipe, train, sampler, perturb=perturb, loss=loss).items():
            raise UnusedOptionError(f"recipe {recipe.name}: {option}", reason=f"no effect {reason}")
        super().__init__(sampler, recipe, processes)
        self.name, self.facts = train.name, _describe_images(train)
        self.ceiling = 100 * math.log(len(train.classes))  # a hundred times the loss of guessing
        self._train, self._recipe, self._seed, self._processes = train, recipe, seed, processes
        self._augment, self._mix, self._loss = build_augmentation(recipe.augment), build_mix(recipe.mix), loss
        self._adversary = GuardedAdversary(recipe.adversary, train, seed=seed, own=perturb)
        self._losses = torch.zeros(self.batch_size)  # of this step's samples, those of other processes 0
        example = to_unit_range(train.images[:2])
        with calling(model, example, classes=train.classes) as network:
            self._layout, self._single = network.layout, network.single or "logit"
            self.notes += network.notes
        if self._layout != torch.contiguous_format:  # which not every buffer can be asked for
            model.to(memory_format=self._layout)

    def trials(self) -> Iterator[tuple[tuple[int, ...], MicroBatch]]:
        recipe = self._recipe
        _, batch = split_batch(self._train, self._sampler.indices(0), recipe.micro_batch)[0]
        objective = Objective(
            len(self._train.classes),
            precision=recipe.precision,
            single=self._single,
            see_outputs=self._note_auxiliary,
        )
        first = choose_side(recipe.resolution, progress=0.0)
        for side in dict.fromkeys([first, *(side for _, side in recipe.resolution)]):
            prepare = View(self._augment, side, self._seed, 0, recipe.shrink)
            losses = partial(image_losses, objective=objective, prepare=prepare, layout=self._layout, batch=batch)
            yield tuple(prepare(batch).shape), losses

    def _note_auxiliary(self, outputs: Outputs) -> None:
        """Say that auxiliary outputs train too."""
        if number := len(outputs.auxiliary):
            weight = auxiliary_weight(number)
            kind = "an auxiliary output" if number == 1 else f"{number} auxiliary outputs"
            note = f"the model has {kind} in training mode, whose loss is added {weight:g} times"
            self.notes = tuple(dict.fromkeys((*self.notes, note)))

    def micro_batches(self, step: int, state: RunState) -> Sequence[tuple[int, MicroBatch]]:
        recipe, processes = self._recipe, self._processes
        with state.clock.part("images"):
            indices = self._sampler.indices(step, left_out=state.left_out)
            pieces = split_batch(self._train, indices, recipe.micro_batch, processes.rank, processes.world)
        perturb = self._adversary.perturb(fallen_back=state.fallen_back, clock=state.clock)
        objective = Objective(
            len(self._train.classes),
            recipe.label_smoothing,
            perturb,
            self._mix,
            recipe.precision,
            self._loss,
            self._single,
        )
        side = choose_side(recipe.resolution, progress=step / self.steps)
        prepare = state.clock.timed("images", View(self._augment, side, self._seed, self.epoch(step), recipe.shrink))
        losses = partial(image_losses, objective=objective, prepare=prepare, layout=self._layout)
        self._losses.zero_()
        pruned = isinstance(self._sampler, PrunedSampler)
        return [
            (number, partial(losses, batch=batch, keep_losses=partial(self._keep, number) if pruned else None))
            for number, batch in pieces
        ]

    def keep_losses(self, step: int, state: RunState) -> None:
        if not isinstance(self._sampler, PrunedSampler):
            return
        if state.losses is None:
            state.losses = torch.full((self.n,), torch.inf)
        indices = self._sampler.indices(step, left_out=state.left_out)
        state.losses[indices] = self._processes.sum_tensor(self._losses)

    def after_epoch(self, model: nn.Module, state: RunState, *, epoch: int) -> dict[str, object] | None:
        """Monitor the recipe's adversary, in the precision of training; then choose what the next epoch leaves out."""
        with autocast(device_of(model), self._recipe.precision):
            accuracies, failed = self._adversary.watch(model, epoch=epoch)
        state.fallen_back = state.fallen_back or failed
        if isinstance(self._sampler, PrunedSampler) and state.losses is not None:
            state.left_out = self._sampler.choose(state.losses, epoch=epoch + 1)
        return None if accuracies is None else asdict(accuracies)

    def finish(self, model: nn.Module) -> list[str]:
        """Running statistics become those of the weights that are kept; where that fails they stay as training left."""
        super().finish(model)
        if self._recipe.refresh_batchnorm:
            try:
                refresh_batchnorm(model, self._train, samples=self._recipe.refresh_batchnorm)
            except ModelError as error:
                return [f"running statistics are as training left them, not measured anew: {error}"]
        return []

    def _keep(self, number: int, losses: Tensor) -> None:
        """The losses (B,) of the micro-batch of that ``number``, less their mean, which falls during training."""
        split_evenly(self._losses, self._recipe.micro_batch)[number].copy_(losses - losses.mean())


def _without_effect(
    recipe: Recipe, train: ImageDataset, sampler: Sampler, *, perturb: Perturb | None, loss: TrainingLoss | None
) -> dict[str, str]:
    """The options that these images, or what the caller gives instead, leave without effect, each with the reason."""
    idle = {}
    if recipe.sequence != SequenceOptions():
        idle["sequence"] = f"on images, {train.name}"
    if loss is not None and recipe.label_smoothing:
        idle["label_smoothing"] = "while the loss is your own"
    if perturb is not None and recipe.adversary.name != "none":
        idle["adversary"] = "while the perturbation is your own"
    height, width = train.shape[1:]
    if recipe.resolution and all(side >= min(height, width) for _, side in recipe.resolution):
        idle["resolution"] = f"on images of {height}×{width}"
    if isinstance(sampler, PrunedSampler) and not sampler.prunes:
        idle["prune.share"] = f"in {recipe.epochs:g} epochs of {sampler.steps_per_epoch} steps: none would be shorter"
    return idle


def _describe_images(train: ImageDataset) -> dict[str, Any]:
    """The data by name, size, shape, classes and a checksum of all its bytes."""
    checksum = 0
    for tensor in (train.images, train.labels, train.ids):
        checksum = zlib.crc32(tensor.contiguous().numpy().data, checksum)
    shape: dict[str, Any] = {"image_shape": list(train.shape), "classes": list(train.classes)}
    if train.preparation is not None:
        shape["preparation"] = train.preparation.model_dump(mode="json", exclude_defaults=True)
    return {"name": train.name, "split": train.split, "n": len(train), **shape, "checksum": checksum}


class SequenceTrainingTask(TrainingTask):
    """Batches of ``task``; ``recipe.sequence.samples`` of them, all different, are an epoch.

    No loss is too high to go on from: an identity recurrence starts far above its baseline and comes down.
    Raises :class:`OptionError` for a recipe that sets what only images have.
    """

    samples = "sequences"

    def __init__(self, task: SequenceTask, recipe: Recipe, *, seed: int, processes: Processes) -> None:
        for option, value in recipe.image_options().items():
            name = getattr(value, "name", None)
            raise OptionError(
                f"recipe {recipe.name}: {option}{'.name' if name else ''}",
                expected=f"none{'' if name else ' of it'}: {task.name} is a task of sequences, not of images",
                got=name or value,
            )
        super().__init__(Sampler(recipe.sequence.samples, recipe.batch_size, seed), recipe, processes)
        self.name, self.loss_unit = task.name, task.loss_unit
        self.facts = {"name": task.name, "split": "train", "n": self.n, "seed": task.seed, **task.shape}
        self._task, self._processes = task, processes
        self._size, self._precision = recipe.micro_batch or self.batch_size, recipe.precision

    def micro_batches(self, step: int, state: RunState) -> Sequence[tuple[int, MicroBatch]]:
        with state.clock.part("images"):
            inputs, targets = self._task.draw(self.batch_size, TRAIN, step)
        parts = (split_evenly(each, self._size) for each in (inputs, targets))
        pieces = list(enumerate(zip(*parts, strict=True)))
        own = pieces[self._processes.rank :: self._processes.world]
        return [(number, partial(self._losses, inputs=x, targets=y)) for number, (x, y) in own]

    def trials(self) -> Iterator[tuple[tuple[int, ...], MicroBatch]]:
        inputs, targets = (split_evenly(each, self._size)[0] for each in self._task.draw(self.batch_size, TRAIN, 0))
        yield tuple(inputs.shape), partial(self._losses, inputs=inputs, targets=targets)

    def _losses(self, model: nn.Module, *, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        device = device_of(model)
        inputs, targets = inputs.to(device), targets.to(device)
        with autocast(device, self._precision), refusing(model, inputs.shape):
            output = model(inputs)
        output = output.float()
        return self._task.loss(output, targets) * len(inputs), self._task.right(output.detach(), targets).sum()
