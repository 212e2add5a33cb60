"""What a model must be able to do in training, tried out before a run begins: nothing is lost or written then."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.sequences import SequenceTask
from assay.errors import DataError, ModelError
from assay.models.calls import refusing
from assay.runtime import device_of, preserved
from assay.training.param_groups import is_norm
from assay.training.recipes import Recipe
from assay.training.step import MicroBatch

HALF = (torch.float16, torch.bfloat16)


def prepare_model(
    model: nn.Module,
    train: ImageDataset | SequenceTask,
    recipe: Recipe,
    *,
    validation: ImageDataset | None,
    seed: int,
) -> list[str]:
    """Give parameters of lazy modules their shapes, drawn by ``seed``; returns notes on the run to come.

    Raises :class:`ModelError` for parameters of half precision, as most steps of usual size would round to nothing;
    :class:`DataError` where ``validation`` is not of the kind or the classes of ``train``.
    """
    if validation is not None:
        wanted = list(train.classes) if isinstance(train, ImageDataset) else f"none: {train.name} is drawn anew"
        if not isinstance(train, ImageDataset) or validation.classes != train.classes:
            raise DataError("validation: classes", expected=f"{wanted}", got=list(validation.classes))
    if isinstance(train, ImageDataset) and any(map(is_lazy, model.parameters())):
        images = to_unit_range(train.images[:2].to(device_of(model)))
        with preserved(model, training=False), torch.no_grad(), refusing(model, images.shape):
            torch.manual_seed(seed)
            model(images)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype in HALF:
            expected = 'float32 parameters; the recipe\'s precision = "bfloat16" computes in half of it'
            raise ModelError(f"model: {name}", expected=expected, got=str(parameter.dtype).removeprefix("torch."))
    return _describe(model, train, recipe)


def try_step(model: nn.Module, trials: Iterable[tuple[tuple[int, ...], MicroBatch]]) -> None:
    """A forward and a backward pass in training mode for each of ``trials``, a shape of inputs and their loss.

    Two for the first, since what a model keeps from one step may spoil the next. The model is left as it was. Raises
    :class:`ModelError` for a model that cannot be trained so.
    """
    with preserved(model, training=True), torch.enable_grad():
        for place, (shape, losses) in enumerate(trials):
            expected = f"one that takes a batch {tuple(shape)} alone, forward and backward"
            with refusing(model, where="model in training mode", expected=expected):
                for _ in range(2 if place == 0 else 1):
                    loss, _ = losses(model)
                    if not loss.requires_grad:
                        raise ModelError("model", expected="logits that depend on a trainable parameter", got="others")
                    loss.backward()  # type: ignore[no-untyped-call]


def _describe(model: nn.Module, train: ImageDataset | SequenceTask, recipe: Recipe) -> list[str]:
    """Notes on what a run makes of its data and recipe that neither says by itself."""
    notes = []
    norms = [m for m in model.modules() if isinstance(m, _NormBase)]
    if model.training and any(not norm.training for norm in norms):
        notes.append("norm layers that were in evaluation mode train too: override train() to freeze them")
    if isinstance(train, ImageDataset):
        present = torch.bincount(train.labels, minlength=len(train.classes)) > 0
        if not bool(present.all()):
            absent = [name for name, there in zip(train.classes, present.tolist(), strict=True) if not there]
            shown = ", ".join(absent[:6]) + (" …" if len(absent) > 6 else "")
            notes.append(f"no training image of {len(absent)} of {len(train.classes)} classes: {shown}")
        if len(train) < recipe.batch_size:
            notes.append(f"batches of {len(train)}: there are no more images than that")
        elif rest := len(train) % recipe.batch_size:
            notes.append(f"every epoch leaves out {rest} images, others each time, that do not fill a batch")
        if recipe.refresh_batchnorm and not any(norm.running_mean is not None for norm in norms):
            notes.append("refresh_batchnorm has no effect: the model keeps no running statistics")
    if recipe.optimizer.norm_lr_factor != 1 and not any(is_norm(module) for module in model.modules()):
        notes.append("optimizer.norm_lr_factor has no effect: the model has no normalisation layers")
    return notes
