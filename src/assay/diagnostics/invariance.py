"""Invariance: is the prediction the same after image operations that do not change the class?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
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
from assay.runtime import generator
from assay.runtime.sharing import unchanged_models

ORDER_STREAM = 0x1A7
FIRST = 64  # samples after which it is asked for the first time what is still open


@checked
@unchanged_models()
def measure_invariance(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    operations: Sequence[str] = TWELVE,
    batch_size: int = 250,
    seed: int = 0,
    advance: Callable[[], None] | None = None,
    still_open: Callable[[Invariance], Collection[tuple[str, int]]] | None = None,
) -> Invariance:
    """Accuracy under each image operation at five rising magnitudes, all on the same samples.

    Half of the samples, drawn by (seed, sample id), are changed in one direction and half in the other. Operations
    that cannot change such images (Color on grey ones) are left out.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); run in evaluation mode, left as it was found.
        dataset: images and labels of K classes; every sample is used, unless ``still_open`` is given.
        operations: names as of :mod:`assay.augment`; by default the twelve.
        batch_size: images in one forward pass.
        seed: of the directions.
        advance: called after each pass over the data; there are five an operation.
        still_open: measure on 64 samples in random order first, then on twice as many, and so on: it is given the
            record so far, and names the pairs of operation and level that more samples are wanted for.

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
    pairs = [(operation, level) for operation in applicable for level in range(1, len(levels[operation.name]) + 1)]
    n = len(dataset)
    order = torch.arange(n) if still_open is None else torch.randperm(n, generator=generator(seed, ORDER_STREAM))
    before, after = torch.zeros(0, dtype=torch.bool), {_key(*pair): torch.zeros(0, dtype=torch.bool) for pair in pairs}
    waiting = pairs
    while len(before) < n and waiting:
        stop = n if still_open is None else min(n, max(FIRST, 2 * len(before)))
        part = dataset if stop == n == len(order) - len(before) else dataset.subset(order[len(before) : stop])
        before = torch.cat([before, predict(model, part, batch_size=batch_size).correct])
        for operation, level in waiting:
            low, high = levels[operation.name][level - 1]
            change = partial(_change, operation=operation, low=low, high=high, seed=seed)
            right = predict(model, part, batch_size=batch_size, transform=change).correct
            after[_key(operation, level)] = torch.cat([after[_key(operation, level)], right])
            if advance is not None:
                advance()
        measured = _summarize(applicable, levels, before, after)
        if still_open is not None and stop < n:
            opened = still_open(measured)
            waiting = [pair for pair in waiting if _key(*pair) in opened]
    common = order[: min(map(len, after.values()))]
    counts = torch.stack([right[: len(common)] for right in after.values()]).sum(dim=0)
    return measured.model_copy(
        update={
            "seed": seed,
            "seconds": time.perf_counter() - started,
            "per_sample": keep_levels(dataset.subset(common), counts) if len(pairs) <= MOST_LEVELS else None,
        }
    )


def _key(operation: Operation, level: int) -> tuple[str, int]:
    return operation.name, level


def _summarize(
    operations: Sequence[Operation],
    levels: Mapping[str, Sequence[tuple[float, float]]],
    before: Tensor,
    after: Mapping[tuple[str, int], Tensor],
) -> Invariance:
    """The record of what was right ``before``, bool (N,), and under each pair of operation and level ``after`` it."""
    measured = []
    for operation in operations:
        points = []
        for level, (low, high) in enumerate(levels[operation.name], start=1):
            right = after[_key(operation, level)]
            points.append(_count(before[: len(right)], right, level=level, low=low, high=high))
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
        seed=0,
        seconds=0.0,
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
