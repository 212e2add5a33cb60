"""The training loop: the only one. Recipes, perturbations and processes change what it is given, never the loop."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from assay.data.dataset import ImageDataset
from assay.errors import InterruptedRunError
from assay.evaluate import preferred_layout
from assay.records.training import TrainingRun
from assay.runtime import device_of, has_fast_bfloat16, preserved
from assay.training.averaging import WeightAverage
from assay.training.batchnorm import refresh_batchnorm
from assay.training.checkpoint import RunState, identify, name_of
from assay.training.clipping import build_clip
from assay.training.curriculum import Curriculum
from assay.training.distributed import ALONE, Processes
from assay.training.divergence import explain_divergence, is_sane
from assay.training.interruption import deferred_interrupts
from assay.training.journal import Journal
from assay.training.metrics import OnStep, StepMetrics
from assay.training.mixing import build_mix
from assay.training.optimizers import build_optimizers, set_learning_rate, update
from assay.training.overfitting import GuardedAdversary
from assay.training.param_groups import measure_decay_groups
from assay.training.recipes import Recipe
from assay.training.schedule import build_schedule
from assay.training.step import Loss, Objective, Perturb, accumulate_gradient
from assay.training.stopwatch import Stopwatch

STEP_STREAM = 0x57E


def fit(
    model: nn.Module,
    train: ImageDataset,
    *,
    recipe: Recipe,
    validation: ImageDataset | None = None,
    seed: int = 0,
    out: Path | None = None,
    perturb: Perturb | None = None,
    loss: Loss | None = None,
    on_step: OnStep | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    processes: Processes = ALONE,
    architecture: str | None = None,
) -> TrainingRun:
    """Train ``model`` on ``train`` as ``recipe`` says; it ends trained and in evaluation mode.

    ``perturb``   (model, images in [0, 1], labels) -> images: what every micro-batch goes through, such as an attack;
                  None: the recipe's own adversary, if it has one
    ``loss``      (images as trained on, logits, labels or shares of classes) -> sum of the losses, such as a
                  :class:`~assay.training.distillation.Distillation`; None: cross-entropy as the recipe says
    ``on_step``   called with a :class:`StepMetrics` after every step
    ``out``       the run folder; a checkpoint goes there every ``checkpoint_seconds`` and at the end
    ``resume``    go on from the folder's last checkpoint; the end is that of an uninterrupted run, to the bit
    ``processes`` who else trains this model; see :func:`~assay.training.distributed.joined_processes`
    ``architecture`` the name of ours that ``model`` was built by, for ``config.json``; None: it is your own

    Every random choice follows from ``seed``: one machine and one number of threads give equal bits.
    Raises :class:`DivergedError` when a number is not finite, :class:`InterruptedRunError` on SIGINT or SIGTERM once
    the step is finished and saved, :class:`OutputError` when the folder cannot be written to.
    """
    device = device_of(model)
    recipe = recipe.settled(fast_bfloat16=has_fast_bfloat16(device))
    processes.share_weights(model)
    curriculum = Curriculum.of(train, recipe, seed=seed, processes=processes)
    factor = build_schedule(recipe.schedule, steps=curriculum.steps)
    adversary = GuardedAdversary(recipe.adversary, train, seed=seed, own=perturb)
    mix, autocast = build_mix(recipe.mix), torch.bfloat16 if recipe.precision == "bfloat16" else None
    layout = _take_fast_layout(model, train)
    optimizers = build_optimizers(model, recipe.optimizer)
    average = WeightAverage(model, recipe.average)
    clip = build_clip(model, recipe.clip)
    journal = Journal(
        out,
        model,
        optimizers,
        average.tensors,
        identify(recipe, train, seed=seed),
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
            with state.clock.part("images"):
                pieces = curriculum.pieces(step)
            attack = adversary.perturb(fallen_back=state.fallen_back, clock=state.clock)
            model.train()
            model.zero_grad(set_to_none=True)
            losses, rights = accumulate_gradient(
                model,
                pieces,
                objective=Objective(len(train.classes), recipe.label_smoothing, attack, mix, autocast, loss),
                prepare=state.clock.timed("images", curriculum.view(step)),
                layout=layout,
                batch_size=curriculum.batch_size,
                key=(seed, STEP_STREAM, step),
            )
            processes.sum_gradients(model)
            loss_sum, hits, stop = processes.sum_numbers(losses, rights, interrupts.pending is not None)
            norm, reached = float(clip()), loss_sum / curriculum.batch_size
            if not is_sane(reached, norm, classes=len(train.classes)):
                raise explain_divergence(
                    model, pieces, step=step + 1, loss=reached, gradient_norm=norm, kept=journal.kept
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
                    state.fallen_back = _watch_adversary(adversary, model, journal, state, epoch=epoch)
            if stop:
                journal.save(state)
                raise InterruptedRunError(
                    f"interrupted after step {step + 1} of {curriculum.steps}; go on with --resume"
                )
            journal.save_if_due(state)

    journal.save(state)
    _finish(model, train, average, refresh=recipe.refresh_batchnorm)
    journal.save_final(model)
    return TrainingRun(
        recipe=recipe.name,
        model=architecture or name_of(model),
        data=train.name,
        seed=seed,
        epochs=tuple(state.epochs),
        seconds=state.seconds,
        n=len(train),
        groups=measure_decay_groups(model, weight_decay=recipe.optimizer.weight_decay),
        time_split=state.clock.split(training=state.seconds),
        precision=recipe.precision,
    )


def _take_fast_layout(model: nn.Module, train: ImageDataset) -> torch.memory_format:
    """Put the weights into the layout that the model's convolutions are fastest in, and tell which that is."""
    with preserved(model, training=False):
        layout = preferred_layout(model, train)
    model.to(memory_format=layout)
    return layout


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
        return float(processes.predict(model, validation).correct.double().mean())


def _watch_adversary(
    adversary: GuardedAdversary, model: nn.Module, journal: Journal, state: RunState, *, epoch: int
) -> bool:
    """Has the recipe's adversary failed, now or before?"""
    seen = adversary.watch(model, epoch=epoch)
    fallen_back = state.fallen_back or adversary.has_failed(seen)
    journal.watch(seen, epoch=epoch, step=state.step, fallen_back=fallen_back)
    return fallen_back


def _finish(model: nn.Module, train: ImageDataset, average: WeightAverage, *, refresh: int) -> None:
    """The weights become those to keep, the running statistics theirs, the mode evaluation; no gradients stay."""
    average.apply()
    if refresh:
        refresh_batchnorm(model, train, samples=refresh)
    model.zero_grad(set_to_none=True)
    model.eval()
