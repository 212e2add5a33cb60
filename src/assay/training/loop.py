"""The training loop: the only one. Recipes, perturbations and processes change what it is given, never the loop."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.data.sequences import SequenceTask
from assay.errors import InterruptedRunError
from assay.evaluate import predict_shared
from assay.models.sources.blueprint import Structure
from assay.records.training import TrainingRun
from assay.runtime import device_of, has_fast_bfloat16
from assay.runtime.processes import ALONE, Processes, deferred_interrupts
from assay.training.averaging import WeightAverage
from assay.training.checkpoint import RunFolder, RunIdentity
from assay.training.finetuning import FineTuning
from assay.training.metrics import OnStep, StepMetrics
from assay.training.optimizers import build_clip, build_optimizers, set_learning_rate
from assay.training.param_groups import measure_decay_groups
from assay.training.recipes import Recipe
from assay.training.schedule import build_schedule
from assay.training.step import Perturb, StepContext, TrainingLoss, accumulate_gradient, autocast, explain_divergence
from assay.training.tasks import build_task
from assay.training.trial import prepare_model

STEP_STREAM = 0x57E


@checked
def fit(
    model: nn.Module,
    train: ImageDataset | SequenceTask,
    *,
    recipe: Recipe,
    validation: ImageDataset | None = None,
    seed: int = 0,
    out: Path | None = None,
    perturb: Perturb | None = None,
    step_context: StepContext = nullcontext,
    loss: TrainingLoss | None = None,
    on_step: OnStep | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    processes: Processes = ALONE,
    architecture: str | Structure | None = None,
) -> TrainingRun:
    """Train ``model`` by ``recipe``, in place; it ends with the weights to keep and in evaluation mode.

    Every random choice follows from ``seed``: one machine and one number of threads give equal bits.

    Args:
        model: Takes images (N, C, H, W) in [0, 1] and returns logits (N, K), or reads sequences (N, T, features).
        train: The images, or a task of sequences such as :func:`~assay.data.sequences.adding_problem`.
        recipe: Everything else: epochs, batch size, optimizer, schedule, augmentation, …
        validation: Held-out images; accuracy on them is measured after every epoch.
        seed: Decides order, augmentation, dropout, mixing and random starts.
        out: The run folder; a checkpoint goes there every ``checkpoint_seconds`` and at the end.
        perturb: (model, images in [0, 1], labels) -> images: applied to every micro-batch, such as an attack.
            None: the recipe's own adversary, if it has one.
        step_context: (model) -> context manager, entered for the forward and backward pass of every micro-batch; what
            it adds to the gradients, such as those of a regulariser, belongs to the step.
        loss: (images as trained on, logits, labels or shares of classes) -> sum of the losses, such as a
            :class:`~assay.training.step.Distillation`. None: cross-entropy, with the recipe's label smoothing.
        on_step: Called with a :class:`~assay.training.metrics.StepMetrics` after every step.
        resume: Go on from the folder's last checkpoint; the weights end as those of an uninterrupted run, to the bit.
        checkpoint_seconds: How old a checkpoint may grow.
        processes: The processes that train this model together; see
            :func:`~assay.runtime.processes.joined_processes`.
        architecture: The name of ours that ``model`` was built by, or what a network of a library is built from again,
            for ``config.json``. None: it is your own.

    Returns:
        The record of the run: one summary an epoch, seconds, weight-decay groups, precision.

    Raises:
        ModelError: The model cannot take the images, or a forward or backward pass fails in training mode.
        DataError: ``validation`` has other classes than ``train``.
        OptionError: The recipe does not fit the data, or ``out`` holds another run.
        DivergedError: A number is not finite, or the loss is far above that of guessing.
        InterruptedRunError: SIGINT or SIGTERM came, once the step is finished and saved; only with ``out``.
        OutputError: The folder cannot be written to.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", split="train", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> run = assay.fit(model, data, recipe=assay.load_recipe("digits", overrides=["epochs=1"]))
        >>> len(run.epochs), run.n, model.training
        (1, 64, False)
    """
    device = device_of(model)
    recipe = recipe.settled(fast_bfloat16=has_fast_bfloat16(device))
    notes = prepare_model(model, train, recipe, validation=validation, seed=seed)
    processes.share_weights(model)
    task = build_task(model, train, recipe, seed=seed, processes=processes, perturb=perturb, loss=loss)
    factor = build_schedule(recipe.schedule, steps=task.steps)
    tuning = FineTuning(model, train, recipe.finetune, last_epoch=task.epoch(task.steps - 1))
    optimizers, clip = (
        build_optimizers(model, recipe.optimizer, rates=tuning.rates),
        build_clip(model, recipe.clip),
    )
    average = WeightAverage(model, recipe.average, steps=task.steps)
    folder = RunFolder(
        out,
        model,
        optimizers,
        average.tensors,
        RunIdentity(recipe.model_dump(mode="json"), task.facts, seed),
        checkpoint_seconds,
        processes.leads,
        architecture,
    )
    state = folder.open(resume=resume)

    with (
        deferred_interrupts(enabled=out is not None) as interrupts,
        torch.random.fork_rng(devices=[]),
        tuning.running(),
    ):
        for step in range(state.step, task.steps):
            started = time.perf_counter()
            epoch = task.epoch(step)
            set_learning_rate(optimizers, factor(step))
            micro_batches = task.micro_batches(step, state)
            tuning.set_mode(epoch=epoch)
            model.zero_grad(set_to_none=True)
            losses, correct = accumulate_gradient(
                model, micro_batches, task.batch_size, key=(seed, STEP_STREAM, step), step_context=step_context
            )
            task.keep_losses(step, state)
            processes.sum_gradients(model)
            loss_sum, correct_sum, stop = processes.sum_numbers(losses, correct, interrupts.pending is not None)
            gradient_norm, mean_loss = float(clip()), loss_sum / task.batch_size
            if not (math.isfinite(mean_loss) and math.isfinite(gradient_norm) and mean_loss <= task.ceiling):
                raise explain_divergence(
                    model, micro_batches, step + 1, mean_loss, gradient_norm, checkpoint=folder.last_checkpoint
                )
            with state.clock.part("update"):
                with autocast(device, recipe.precision):
                    for optimizer in optimizers:
                        optimizer.step()
                processes.average_buffers(model, share=task.share)  # running statistics agree among the processes
                average.update(step + 1)

            metrics = StepMetrics(
                step=step + 1,
                steps=task.steps,
                epoch=epoch,
                loss=mean_loss,
                accuracy=correct_sum / task.batch_size,
                learning_rate=recipe.optimizer.lr * factor(step),
                gradient_norm=gradient_norm,
                images_per_second=task.batch_size / (time.perf_counter() - started),
                seconds=state.seconds + time.perf_counter() - started,
            )
            state.count(metrics, images=task.batch_size)
            folder.log.step(metrics)
            if on_step is not None and processes.leads:
                on_step(metrics)
            if task.closes_epoch(step):
                with state.clock.part("validation"):
                    accuracy = _measure_validation_accuracy(model, validation, average, processes)
                    folder.log.epoch(state.close_epoch(epoch, accuracy), step=step + 1)
                    watched = task.after_epoch(model, state, epoch=epoch)
                    folder.log.watch(watched, epoch=epoch, step=state.step, fallen_back=state.fallen_back)
            if stop:
                folder.save(state)
                raise InterruptedRunError(f"interrupted after step {step + 1} of {task.steps}; go on with --resume")
            folder.save_if_due(state)

    folder.save(state)
    average.apply()
    notes += [*task.notes, *task.finish(model)]
    folder.save_final()
    return TrainingRun(
        recipe=recipe.name,
        model=folder.model_name,
        data=task.name,
        seed=seed,
        epochs=tuple(state.epochs),
        seconds=state.seconds,
        n=task.n,
        modality=task.samples,
        loss_unit=task.loss_unit,
        groups=measure_decay_groups(
            model, weight_decay=recipe.optimizer.weight_decay, decayed=recipe.optimizer.decay_roles
        ),
        time_split=state.clock.split(training=state.seconds),
        precision=recipe.precision,
        notes=tuple(notes),
    )


def _measure_validation_accuracy(
    model: nn.Module, validation: ImageDataset | None, average: WeightAverage, processes: Processes
) -> float | None:
    """Accuracy on the held-out set with the weights that would be kept now."""
    if validation is None:
        return None
    with average.applied():
        return float(predict_shared(model, validation, processes).correct.double().mean())
