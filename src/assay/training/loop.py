"""The training loop: the only one. Recipes, perturbations and processes change what it is given, never the loop."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from assay.data.dataset import ImageDataset
from assay.data.sequences import SequenceTask
from assay.errors import InterruptedRunError, OptionError
from assay.evaluate import predict_shared
from assay.records.training import TrainingRun
from assay.runtime import device_of, has_fast_bfloat16
from assay.runtime.processes import ALONE, Processes, deferred_interrupts
from assay.training.averaging import WeightAverage
from assay.training.checkpoint import Journal, RunIdentity, name_of
from assay.training.metrics import OnStep, StepMetrics, Stopwatch
from assay.training.objective import Loss, Perturb
from assay.training.optimizers import build_optimizers, set_learning_rate, update
from assay.training.param_groups import measure_decay_groups
from assay.training.recipes import Recipe
from assay.training.schedule import build_schedule
from assay.training.step import (
    Around,
    accumulate_gradient,
    autocast_dtype,
    build_clip,
    explain_divergence,
    is_sane,
    nothing_around,
)
from assay.training.tasks import Curriculum, ImageCurriculum, SequenceCurriculum

STEP_STREAM = 0x57E


def fit(
    model: nn.Module,
    train: ImageDataset | SequenceTask,
    *,
    recipe: Recipe,
    validation: ImageDataset | None = None,
    seed: int = 0,
    out: Path | None = None,
    perturb: Perturb | None = None,
    around: Around = nothing_around,
    loss: Loss | None = None,
    on_step: OnStep | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    processes: Processes = ALONE,
    architecture: str | None = None,
) -> TrainingRun:
    """Train ``model`` on ``train``, images or sequences, as ``recipe`` says; it ends trained and in evaluation mode.

    ``perturb``   (model, images in [0, 1], labels) -> images: what every micro-batch goes through, such as an attack;
                  None: the recipe's own adversary, if it has one
    ``around``    (model) -> context manager: entered for the forward and backward pass of every micro-batch; what it
                  adds to the gradients, such as a regulariser's, belongs to the step
    ``loss``      (images as trained on, logits, labels or shares of classes) -> sum of the losses, such as a
                  :class:`~assay.training.objective.Distillation`; None: cross-entropy as the recipe says
    ``on_step``   called with a :class:`StepMetrics` after every step
    ``out``       the run folder; a checkpoint goes there every ``checkpoint_seconds`` and at the end
    ``resume``    go on from the folder's last checkpoint; the end is that of an uninterrupted run, to the bit
    ``processes`` who else trains this model; see :func:`~assay.runtime.processes.joined_processes`
    ``architecture`` the name of ours that ``model`` was built by, for ``config.json``; None: it is your own

    Every random choice follows from ``seed``: one machine and one number of threads give equal bits.
    Raises :class:`DivergedError` when a number is not finite, :class:`InterruptedRunError` on SIGINT or SIGTERM once
    the step is finished and saved, :class:`OutputError` when the folder cannot be written to.
    """
    device = device_of(model)
    recipe = recipe.settled(fast_bfloat16=has_fast_bfloat16(device))
    processes.share_weights(model)
    curriculum = _plan(model, train, recipe, seed=seed, processes=processes, perturb=perturb, loss=loss)
    factor = build_schedule(recipe.schedule, steps=curriculum.steps)
    autocast = autocast_dtype(recipe.precision)
    optimizers = build_optimizers(model, recipe.optimizer)
    average = WeightAverage(model, recipe.average)
    clip = build_clip(model, recipe.clip)
    journal = Journal(
        out,
        model,
        optimizers,
        average.tensors,
        RunIdentity(recipe.model_dump(mode="json"), curriculum.facts, seed),
        checkpoint_seconds,
        leads=processes.leads,
        architecture=architecture,
    )
    state = journal.open(resume=resume)

    with deferred_interrupts(enabled=out is not None) as interrupts, torch.random.fork_rng(devices=[]):
        for step in range(state.step, curriculum.steps):
            started = time.perf_counter()
            epoch = curriculum.epoch(step)
            set_learning_rate(optimizers, factor(step))
            lessons = curriculum.lessons(step, state)
            model.train()
            model.zero_grad(set_to_none=True)
            losses, rights = accumulate_gradient(
                model, lessons, batch_size=curriculum.batch_size, key=(seed, STEP_STREAM, step), around=around
            )
            curriculum.remember(step, state)
            processes.sum_gradients(model)
            loss_sum, hits, stop = processes.sum_numbers(losses, rights, interrupts.pending is not None)
            norm, reached = float(clip()), loss_sum / curriculum.batch_size
            if not is_sane(reached, norm, ceiling=curriculum.ceiling):
                raise explain_divergence(
                    model, lessons, step=step + 1, loss=reached, gradient_norm=norm, kept=journal.kept
                )
            with state.clock.part("update"), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
                update(optimizers)
            _settle(model, average, processes, step=step + 1, clock=state.clock)

            metrics = StepMetrics(
                step=step + 1,
                steps=curriculum.steps,
                epoch=epoch,
                loss=reached,
                accuracy=hits / curriculum.batch_size,
                learning_rate=recipe.optimizer.lr * factor(step),
                gradient_norm=norm,
                images_per_second=curriculum.batch_size / (time.perf_counter() - started),
                seconds=state.seconds + time.perf_counter() - started,
            )
            state.count(metrics, images=curriculum.batch_size)
            journal.step(metrics)
            if on_step is not None and processes.leads:
                on_step(metrics)
            if curriculum.closes_epoch(step):
                with state.clock.part("validation"):
                    accuracy = _watch_validation(model, validation, average, processes)
                    journal.epoch(state.close_epoch(epoch, accuracy), step=step + 1)
                    seen = curriculum.review(model, state, epoch=epoch)
                    journal.watch(seen, epoch=epoch, step=state.step, fallen_back=state.fallen_back)
            if stop:
                journal.save(state)
                raise InterruptedRunError(
                    f"interrupted after step {step + 1} of {curriculum.steps}; go on with --resume"
                )
            journal.save_if_due(state)

    journal.save(state)
    _finish(model, curriculum, average)
    journal.save_final(model)
    return TrainingRun(
        recipe=recipe.name,
        model=architecture or name_of(model),
        data=curriculum.name,
        seed=seed,
        epochs=tuple(state.epochs),
        seconds=state.seconds,
        n=curriculum.n,
        modality=curriculum.samples,
        loss_unit=curriculum.loss_unit,
        groups=measure_decay_groups(
            model, weight_decay=recipe.optimizer.weight_decay, decayed=recipe.optimizer.decay_roles
        ),
        time_split=state.clock.split(training=state.seconds),
        precision=recipe.precision,
    )


def _plan(
    model: nn.Module,
    train: ImageDataset | SequenceTask,
    recipe: Recipe,
    *,
    seed: int,
    processes: Processes,
    perturb: Perturb | None,
    loss: Loss | None,
) -> Curriculum:
    """What there is to learn from ``train``."""
    if isinstance(train, ImageDataset):
        return ImageCurriculum(model, train, recipe, seed=seed, processes=processes, perturb=perturb, loss=loss)
    for name, given in (("perturb", perturb), ("loss", loss)):
        if given is not None:
            raise OptionError(name, expected=f"None: {train.name} is no set of images and has its own loss", got=given)
    return SequenceCurriculum(train, recipe, seed=seed, processes=processes)


def _settle(model: nn.Module, average: WeightAverage, processes: Processes, *, step: int, clock: Stopwatch) -> None:
    """After an update: running statistics agree among the processes, and the average takes the weights in."""
    with clock.part("update"):
        processes.average_buffers(model)
        average.update(step)


def _watch_validation(
    model: nn.Module, validation: ImageDataset | None, average: WeightAverage, processes: Processes
) -> float | None:
    """Accuracy on the held-out set with the weights that would be kept now."""
    if validation is None:
        return None
    with average.applied():
        return float(predict_shared(model, validation, processes).correct.double().mean())


def _finish(model: nn.Module, curriculum: Curriculum, average: WeightAverage) -> None:
    """The weights become those to keep, the running statistics theirs, the mode evaluation; no gradients stay."""
    average.apply()
    curriculum.finish(model)
    model.zero_grad(set_to_none=True)
    model.eval()
