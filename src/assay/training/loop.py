"""The training loop: the only one. Recipes, perturbations and processes change what it is given, never the loop."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from assay.augment.policies import Augmentation, flip_crop
from assay.data.dataset import Batch, ImageDataset, to_unit_range
from assay.errors import InterruptedRunError
from assay.evaluate import predict, preferred_layout
from assay.records.training import TrainingRun
from assay.runtime import preserved
from assay.training import schedule
from assay.training.checkpoint import identify
from assay.training.divergence import explain_divergence, is_sane
from assay.training.interruption import deferred_interrupts
from assay.training.journal import Journal
from assay.training.metrics import OnStep, StepMetrics
from assay.training.optimizers import build_optimizers, set_learning_rate
from assay.training.param_groups import measure_decay_groups
from assay.training.recipes import AugmentOptions, Recipe, ScheduleOptions
from assay.training.sampling import Sampler, micro_batches
from assay.training.step import Objective, Perturb, accumulate_gradient

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
    on_step: OnStep | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
) -> TrainingRun:
    """Train ``model`` on ``train`` as ``recipe`` says; it ends trained and in evaluation mode.

    ``perturb``   (model, images in [0, 1], labels) -> images: what every micro-batch goes through, such as an attack
    ``on_step``   called with a :class:`StepMetrics` after every step
    ``out``       the run folder; a checkpoint goes there every ``checkpoint_seconds`` and at the end
    ``resume``    go on from the folder's last checkpoint; the end is that of an uninterrupted run, to the bit

    Every random choice follows from ``seed``: one machine and one number of threads give equal bits.
    Raises :class:`DivergedError` when a number is not finite, :class:`InterruptedRunError` on SIGINT or SIGTERM once
    the step is finished and saved, :class:`OutputError` when the folder cannot be written to.
    """
    sampler = Sampler(len(train), recipe.batch_size, seed)
    steps = sampler.steps(recipe.epochs)
    factor = build_schedule(recipe.schedule, steps)
    augment = build_augmentation(recipe.augment)
    objective = Objective(len(train.classes), recipe.label_smoothing, perturb)
    with preserved(model, training=False):
        layout = preferred_layout(model, train)
    model.to(memory_format=layout)
    optimizers = build_optimizers(model, recipe.optimizer)
    journal = Journal(out, model, optimizers, None, identify(recipe, train, seed=seed), checkpoint_seconds)
    state = journal.open(resume=resume)
    random_state = torch.get_rng_state()

    with deferred_interrupts(enabled=out is not None) as interrupts:
        for step in range(state.step, steps):
            started = time.perf_counter()
            model.train()
            rate = factor(step)
            set_learning_rate(optimizers, rate)
            epoch = sampler.epoch(step)
            pieces = micro_batches(train, sampler.indices(step), size=recipe.micro_batch)
            model.zero_grad(set_to_none=True)
            loss, correct = accumulate_gradient(
                model,
                pieces,
                objective=objective,
                prepare=partial(_augment, augment=augment, seed=seed, epoch=epoch),
                layout=layout,
                batch_size=sampler.size,
                key=(seed, STEP_STREAM, step),
            )
            norm = float(get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
            if not is_sane(float(loss) / sampler.size, norm, classes=len(train.classes)):
                images = to_unit_range(pieces[0][1].images)
                raise explain_divergence(
                    model, images, step=step + 1, loss=float(loss) / sampler.size, gradient_norm=norm, kept=journal.kept
                )
            for optimizer in optimizers:
                optimizer.step()

            seconds = time.perf_counter() - started
            state.count(
                images=sampler.size,
                loss=float(loss),
                correct=int(correct),
                gradient_norm=norm,
                learning_rate=recipe.optimizer.lr * rate,
                seconds=seconds,
            )
            metrics = StepMetrics(
                step=state.step,
                steps=steps,
                epoch=epoch,
                loss=float(loss) / sampler.size,
                accuracy=int(correct) / sampler.size,
                learning_rate=recipe.optimizer.lr * rate,
                gradient_norm=norm,
                images_per_second=sampler.size / seconds,
                seconds=state.seconds,
            )
            journal.step(metrics)
            if on_step is not None:
                on_step(metrics)
            if state.step == steps or sampler.epoch(state.step) != epoch:
                accuracy = None if validation is None else _accuracy(model, validation)
                journal.epoch(state.close_epoch(epoch, accuracy), step=state.step)
            if interrupts.pending is not None:
                journal.save(state)
                raise InterruptedRunError(
                    f"{interrupts.pending} after step {state.step} of {steps}; go on with --resume"
                )
            journal.save_if_due(state)

    journal.save(state)
    torch.set_rng_state(random_state)
    model.eval()
    return TrainingRun(
        recipe=recipe.name,
        model=recipe.model,
        data=train.name,
        seed=seed,
        epochs=tuple(state.epochs),
        seconds=state.seconds,
        n=len(train),
        groups=measure_decay_groups(model, weight_decay=recipe.optimizer.weight_decay),
    )


def build_augmentation(options: AugmentOptions) -> Augmentation | None:
    """What happens to the bytes of every training image; None: nothing."""
    if options.name == "none":
        return None
    return flip_crop(padding=options.padding, flip=options.flip)


def _augment(batch: Batch, *, augment: Augmentation | None, seed: int, epoch: int) -> Tensor:
    return batch.images if augment is None else augment(batch.images, batch.ids, seed=seed, epoch=epoch)


def _accuracy(model: nn.Module, dataset: ImageDataset) -> float:
    return float(predict(model, dataset).correct.double().mean())


def build_schedule(options: ScheduleOptions, steps: int) -> schedule.Schedule:
    """The factor on the peak learning rate at every step of a run of ``steps``."""
    warmup = round(options.warmup * steps)
    schedules: dict[str, schedule.Schedule] = {
        "constant": partial(schedule.constant, warmup=warmup),
        "cosine": partial(schedule.cosine, total=steps, warmup=warmup, final=options.final),
        "linear": partial(schedule.linear, total=steps, warmup=warmup, final=options.final),
        "triangular": partial(
            schedule.triangular, total=steps, peak=options.peak, start=options.start, final=options.final
        ),
        "multistep": partial(
            schedule.multistep, total=steps, milestones=options.milestones, gamma=options.gamma, warmup=warmup
        ),
    }
    return schedules[options.name]
