"""What an attack did to the images: visibility (PSNR, SSIM), transitions between classes, loss; and pictures of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.arguments import checked
from assay.attacks.batch import predictions
from assay.attacks.measure import RobustnessMeasurement
from assay.attacks.result import AttackOutcome, AttackResult
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.pictures import jpeg_base64, png_base64, thumbnail_base64, to_bytes
from assay.errors import DataError
from assay.records.attack import (
    AdversarialExample,
    AdversarialGallery,
    AttackAnatomy,
    PicturedSample,
    RobustAccuracy,
    SampleGallery,
    Transition,
)

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_WINDOW = 7
_PART_VALUES = 2**21  # pixel values looked at together: some twenty times as many bytes in float64, a dozen copies


class AttackedImages:
    """What is kept of the images of an attack, block by block: how visible all changes are, and a few examples.

    ``shown`` samples are kept with their images: of those that were correct before the attack, the most confidently
    wrong after it.
    """

    def __init__(self, dataset: ImageDataset, *, shown: int = 0) -> None:
        self._dataset = dataset
        self._shown = shown
        self._ratios: list[Tensor] = []
        self._similarities: list[Tensor] = []
        self._examples: list[tuple[float, int, Tensor]] = []  # confidence after the attack, row, adversarial image

    def add(self, rows: Tensor, result: AttackResult) -> None:
        """Look at the images of ``rows``, int64 (B,), as ``result`` found them."""
        places = result.broken.nonzero()[:, 0]
        for part in torch.split(places, max(1, _PART_VALUES // math.prod(self._dataset.shape))) if len(places) else ():
            images, changed = to_unit_range(self._dataset.images[rows[part]]), result.adversarial[part]
            self._ratios.append(psnr(images, changed))
            self._similarities.append(ssim(images, changed))
        confidences = result.logits.softmax(dim=1).amax(dim=1)
        fallen = (result.clean_correct & ~result.robust).nonzero()[:, 0]
        best = fallen[confidences[fallen].argsort(descending=True, stable=True)][: self._shown]
        self._examples += [(float(confidences[i]), int(rows[i]), result.adversarial[i].clone()) for i in best.tolist()]
        self._examples = sorted(self._examples, key=lambda example: -example[0])[: self._shown]

    def describe(self, record: RobustAccuracy, outcome: AttackOutcome) -> AttackAnatomy:
        """Loss quantiles after each step, transitions between classes, and PSNR and SSIM of the broken images."""
        rows = outcome.broken.nonzero()[:, 0]
        quantiles: tuple[tuple[float, ...], ...] = ()
        if outcome.trace is not None:
            levels = torch.tensor(QUANTILES, dtype=torch.float64)
            per_step = outcome.trace.losses.cpu().double().quantile(levels, dim=0).T  # (steps + 1, Q)
            quantiles = tuple(tuple(row) for row in per_step.tolist())
        ratios, similarities = (torch.cat(parts) if parts else None for parts in (self._ratios, self._similarities))
        return AttackAnatomy(
            attack=record.attack,
            norm=record.norm,
            epsilon=record.epsilon,
            broken=len(rows),
            quantile_levels=QUANTILES,
            loss_quantiles=quantiles,
            transitions=_transitions(outcome.labels[rows], predictions(outcome.logits)[rows], self._dataset.classes),
            median_psnr=None if ratios is None else float(ratios.median()),
            median_ssim=None if similarities is None else float(similarities.median()),
            lowest_ssim=None if similarities is None else float(similarities.min()),
        )

    def gallery(self, record: RobustAccuracy, outcome: AttackOutcome) -> AdversarialGallery:
        """The examples. The perturbation is drawn about mid-grey, magnified as :func:`magnification` says."""
        dataset, examples = self._dataset, []
        for _, row, adversarial in self._examples:
            before, after = outcome.clean_logits[row].softmax(dim=0), outcome.logits[row].softmax(dim=0)
            delta = adversarial - to_unit_range(dataset.images[row])
            magnified = magnification(delta)
            was, now = int(before.argmax()), int(after.argmax())
            examples.append(
                AdversarialExample(
                    sample_id=dataset.sample_name(row),
                    label=dataset.classes[int(outcome.labels[row])],
                    clean_prediction=dataset.classes[was],
                    clean_confidence=float(before[was]),
                    adversarial_prediction=dataset.classes[now],
                    adversarial_confidence=float(after[now]),
                    distance=float(outcome.distances[row]),
                    magnified=magnified,
                    image=thumbnail_base64(dataset.images[row]),
                    perturbation=thumbnail_base64(to_bytes((0.5 + magnified * delta).clamp(0, 1))),
                    adversarial=thumbnail_base64(to_bytes(adversarial.clamp(0, 1))),
                )
            )
        return AdversarialGallery(**_which_attack(record), examples=tuple(examples))


@checked
def describe_attack(measurement: RobustnessMeasurement, dataset: ImageDataset) -> AttackAnatomy:
    """Loss quantiles after each step, transitions between classes, and PSNR and SSIM of the broken images.

    ``dataset`` is the one that was attacked.
    """
    images = _images_of(measurement, dataset)
    return images.describe(measurement.record, measurement.result)


@checked
def pick_gallery(measurement: RobustnessMeasurement, dataset: ImageDataset, *, shown: int = 12) -> AdversarialGallery:
    """The ``shown`` samples that were correct before the attack and are most confidently wrong after it.

    ``dataset`` is the one that was attacked. The perturbation is drawn about mid-grey, magnified by the largest power
    of two (at least 1) that keeps it within the pixel range.
    """
    images = _images_of(measurement, dataset, shown=shown)
    return images.gallery(measurement.record, measurement.result)


def _images_of(measurement: RobustnessMeasurement, dataset: ImageDataset, *, shown: int = 0) -> AttackedImages:
    check_samples(measurement.result, dataset)
    images = AttackedImages(dataset, shown=shown)
    images.add(torch.arange(len(dataset)), measurement.result)
    return images


def check_samples(outcome: AttackOutcome, dataset: ImageDataset) -> None:
    """Raise :class:`DataError` for another number of samples than were attacked."""
    n = len(outcome.labels)
    if len(dataset) != n:
        raise DataError("dataset", expected=f"the {n} samples that were attacked", got=len(dataset))


def _which_attack(record: RobustAccuracy) -> dict[str, Any]:
    return record.model_dump(include={"attack", "norm", "epsilon"})


def _transitions(labels: Tensor, after: Tensor, classes: tuple[str, ...]) -> tuple[Transition, ...]:
    """(from, to, count), the most frequent first."""
    finite = after >= 0
    pairs = labels[finite] * len(classes) + after[finite]
    counts = torch.bincount(pairs, minlength=len(classes) ** 2)
    order = counts.argsort(descending=True, stable=True)
    return tuple(
        Transition(before=classes[i // len(classes)], after=classes[i % len(classes)], count=int(counts[i]))
        for i in order[: int((counts > 0).sum())].tolist()
    )


def psnr(images: Tensor, changed: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image in [0, 1], −10·log₁₀ of the mean squared error; (B,)."""
    error = (images.double() - changed.double()).flatten(1).square().mean(dim=1)
    return -10.0 * error.clamp_min(torch.finfo(torch.float64).tiny).log10()


def ssim(images: Tensor, changed: Tensor) -> Tensor:
    """Structural similarity of each image in [0, 1], (B,): 1 is identical.

    Mean over channels and windows of (2μₓμᵧ + C₁)(2σₓᵧ + C₂) / ((μₓ² + μᵧ² + C₁)(σₓ² + σᵧ² + C₂)), C₁ = 0.01²,
    C₂ = 0.03², uniform windows of 7 pixels (fewer in a smaller picture) and unbiased variances. Wang et al. 2004.
    """
    side = min(_WINDOW, *images.shape[2:])
    side -= 1 - side % 2
    x, y = images.double(), changed.double()
    unbiased = side**2 / max(side**2 - 1, 1)

    mean = partial(F.avg_pool2d, kernel_size=side, stride=1)
    mx, my = mean(x), mean(y)
    vx, vy = (mean(x * x) - mx * mx) * unbiased, (mean(y * y) - my * my) * unbiased
    cov = (mean(x * y) - mx * my) * unbiased
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return torch.mean(similarity.flatten(1), dim=1)


def magnification(delta: Tensor) -> float:
    """The largest power of two, at least 1, by which ``delta`` may be multiplied and stay within ±0.5."""
    largest = float(delta.abs().amax())
    if largest == 0 or not math.isfinite(largest):
        return 1.0
    return float(max(1.0, 2.0 ** math.floor(math.log2(0.5 / largest))))


LARGEST_LOSSLESS = 64  # pixels a side of a picture that is shown as it is
LARGEST_TILE = 128  # of the others: twice as many as on the page, for screens of two pixels a point
BLOCK = 8  # pixels a side of what JPEG codes together: no tile shows the edge of its neighbour
MOST_BYTES = 900_000  # of the sheet, in base64
COLUMNS = 20


def pick_samples(
    measurement: RobustnessMeasurement, dataset: ImageDataset, *, shown: int = 300, most_bytes: int = MOST_BYTES
) -> SampleGallery:
    """At most ``shown`` samples in their order: those wrong before, broken, and robust get equal shares of the places.

    What one group does not need goes to the others; of a group that is too large, samples evenly spaced are taken.
    Fewer are shown where their pictures together would take more than ``most_bytes``. ``dataset`` is the one that
    was attacked.
    """
    return show_samples(measurement.record, measurement.result, dataset, shown=shown, most_bytes=most_bytes)


def show_samples(
    record: RobustAccuracy,
    result: AttackOutcome,
    dataset: ImageDataset,
    *,
    shown: int = 300,
    most_bytes: int = MOST_BYTES,
) -> SampleGallery:
    """:func:`pick_samples` of an attack whose images were not kept."""
    check_samples(result, dataset)
    masks = (~result.clean_correct, result.clean_correct & ~result.robust, result.robust)
    groups = [mask.nonzero()[:, 0] for mask in masks]
    while True:
        places = share_out([len(group) for group in groups], places=shown)
        evenly = [torch.arange(n) * len(group) // max(1, n) for group, n in zip(groups, places, strict=True)]
        rows = torch.cat([group[chosen] for group, chosen in zip(groups, evenly, strict=True)]).sort().values
        tiles = _tiles(dataset.images[rows])
        encode = png_base64 if max(dataset.shape[1:]) <= LARGEST_LOSSLESS else jpeg_base64
        sheet = encode(arrange(tiles, columns=COLUMNS)) if len(rows) else ""
        if len(sheet) <= most_bytes or shown <= 1:
            break
        shown = max(1, int(min(shown, len(rows)) * most_bytes / len(sheet) * 0.95))
    before, after = result.clean_logits[rows].softmax(dim=1), result.logits[rows].softmax(dim=1)
    was, now = predictions(result.clean_logits[rows]).tolist(), predictions(result.logits[rows]).tolist()
    steps = torch.where(result.broken, result.steps, -1)[rows].tolist()
    samples = tuple(
        PicturedSample(
            sample_id=dataset.sample_name(row),
            label=int(result.labels[row]),
            before=was[i],
            confidence_before=float(before[i].amax()),
            after=now[i],
            confidence_after=float(after[i].amax()),
            steps=steps[i] if steps[i] >= 0 else None,
        )
        for i, row in enumerate(rows.tolist())
    )
    return SampleGallery(
        **_which_attack(record),
        n=len(dataset),
        wrong=len(groups[0]),
        broken=len(groups[1]),
        held=len(groups[2]),
        classes=dataset.classes,
        tile=(tiles.shape[2], tiles.shape[3]),
        columns=COLUMNS,
        sheet=sheet,
        samples=samples,
    )


def share_out(wanted: Sequence[int], *, places: int) -> list[int]:
    """Equal shares of ``places``, none larger than wanted; what is left over goes to those that want more.

    >>> share_out([5, 200, 40], places=100)
    [5, 55, 40]
    """
    given = [0] * len(wanted)
    smallest_first = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for waiting, i in zip(range(len(wanted), 0, -1), smallest_first, strict=True):
        given[i] = min(wanted[i], places // waiting)
        places -= given[i]
    return given


def arrange(tiles: Tensor, *, columns: int) -> Tensor:
    """uint8 (N, C, H, W) to one picture (C, ⌈N/columns⌉·H, columns·W), row by row; empty places are black."""
    n, channels, height, width = tiles.shape
    rows = -(-n // columns)
    padded = torch.cat([tiles, tiles.new_zeros(rows * columns - n, channels, height, width)])
    # (rows·columns, C, H, W) -> (C, rows, H, columns, W)
    grid = padded.reshape(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return grid.reshape(channels, rows * height, columns * width)


def _tiles(images: Tensor) -> Tensor:
    longest = max(images.shape[2:])
    if longest <= LARGEST_LOSSLESS or len(images) == 0:
        return images
    scale = min(LARGEST_TILE, longest) / longest
    height, width = (max(1, round(side * scale / BLOCK)) * BLOCK for side in images.shape[2:])
    shrink = partial(F.interpolate, size=(height, width), mode="bilinear", antialias=True)
    return to_bytes(torch.cat([shrink(image[None].float() / 255) for image in images]))
