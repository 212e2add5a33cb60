"""Invariance: is the prediction the same after image operations that do not change the class?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.augment.operations import TWELVE, Operation, find_operation, levels_of
from assay.augment.plan import apply_operation
from assay.augment.randomness import draw_integers
from assay.data.dataset import MOST_LEVELS, Batch, ImageDataset, keep_levels
from assay.evaluate import predict
from assay.records.accuracy import Invariance, OperationAccuracy, OperationPoint, Proportion


@checked
def measure_invariance(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    operations: Sequence[str] = TWELVE,
    batch_size: int = 250,
    seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> Invariance:
    """Accuracy under each image operation at five rising magnitudes, all on the same samples.

    Half of the samples, drawn by (seed, sample id), are changed in one direction and half in the other. Operations
    that cannot change such images (Color on grey ones) are left out.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); run in evaluation mode, left as it was found.
        dataset: images and labels of K classes; every sample is used.
        operations: names as of :mod:`assay.augment`; by default the twelve.
        batch_size: images in one forward pass.
        seed: of the directions.
        advance: called after each pass over the data; there are five an operation.

    Returns:
        The record: accuracy of every operation at every magnitude with its interval, the samples lost and gained, the
        mean accuracy and the worst operation.

    Raises:
        OptionError: no operation has this name.
        ModelError: the model cannot take the images.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=32)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> invariance = assay.measure_invariance(model, data, operations=["Rotate", "Brightness"])
        >>> [operation.operation for operation in invariance.operations], len(invariance.operations[0].points)
        (['Rotate', 'Brightness'], 5)

    Reference:
        The operations of Cubuk et al. 2020 (RandAugment), arXiv:1909.13719.
    """
    started = time.perf_counter()
    channels, height, width = dataset.shape
    applicable = [operation for operation in map(find_operation, operations) if _applies(operation, channels)]
    levels = {operation.name: levels_of(operation, height=height, width=width) for operation in applicable}
    before = predict(model, dataset, batch_size=batch_size).correct
    measured = []
    levels_correct = torch.zeros(len(dataset), dtype=torch.int64)
    for operation in applicable:
        points = []
        for level, (low, high) in enumerate(levels[operation.name], start=1):
            change = partial(_change, operation=operation, low=low, high=high, seed=seed)
            after = predict(model, dataset, batch_size=batch_size, transform=change).correct
            levels_correct += after
            points.append(_count(before, after, level=level, low=low, high=high))
            if advance is not None:
                advance()
        mean = statistics.fmean(point.accuracy for point in points)
        measured.append(
            OperationAccuracy(operation=operation.name, unit=operation.unit, points=tuple(points), mean_accuracy=mean)
        )
    worst = min(measured, key=lambda each: each.mean_accuracy)
    return Invariance(
        clean=Proportion.of(int(before.sum()), len(before)),
        operations=tuple(measured),
        mean_accuracy=statistics.fmean(each.mean_accuracy for each in measured),
        worst_operation=worst.operation,
        worst_accuracy=worst.mean_accuracy,
        seed=seed,
        seconds=time.perf_counter() - started,
        per_sample=keep_levels(dataset, levels_correct) if sum(map(len, levels.values())) <= MOST_LEVELS else None,
    )


def _applies(operation: Operation, channels: int) -> bool:
    if operation.name in {"Color", "Hue"}:
        return channels == 3
    return operation.name != "Contrast" or channels in {1, 3}


def _change(batch: Batch, *, operation: Operation, low: float, high: float, seed: int) -> Tensor:
    upwards = torch.from_numpy(draw_integers(batch.ids, 2, seed=seed, epoch=0, slot=operation.code)).bool()
    magnitudes = torch.where(upwards, high, low).double()
    return apply_operation(batch.images, operation.name, magnitudes)


def _count(before: Tensor, after: Tensor, *, level: int, low: float, high: float) -> OperationPoint:
    return OperationPoint.of(
        int(after.sum()),
        len(after),
        level=level,
        magnitude_low=low,
        magnitude_high=high,
        lost=int((before & ~after).sum()),
        gained=int((~before & after).sum()),
    )
