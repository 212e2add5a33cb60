"""Samples of an attack one by one, with small pictures, for a page to filter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.attacks.measure import RobustnessMeasurement
from assay.attacks.success import predictions
from assay.data.dataset import ImageDataset
from assay.data.pictures import png_base64, to_bytes
from assay.errors import DataError
from assay.records.sample_gallery import PicturedSample, SampleGallery

LARGEST_TILE = 64  # pixels along the longer side
MOST_BYTES = 900_000  # of the sheet, in base64
COLUMNS = 20


def pick_samples(
    measurement: RobustnessMeasurement, dataset: ImageDataset, *, shown: int = 300, most_bytes: int = MOST_BYTES
) -> SampleGallery:
    """At most ``shown`` samples in their order: those wrong before, broken, and held get equal shares of the places.

    What one group does not need goes to the others; of a group that is too large, samples evenly spaced are taken.
    Fewer are shown where their pictures together would take more than ``most_bytes``. ``dataset`` is the one the
    attack ran on.
    """
    outcome, record = measurement.outcome, measurement.record
    if len(dataset) != len(outcome.labels):
        raise DataError("dataset", expected=f"the {len(outcome.labels)} samples that were attacked", got=len(dataset))
    groups = [
        group.nonzero()[:, 0] for group in (~outcome.clean_right, outcome.clean_right & ~outcome.robust, outcome.robust)
    ]
    while True:
        places = share_out([len(group) for group in groups], places=shown)
        rows = torch.cat([_evenly(group, n) for group, n in zip(groups, places, strict=True)]).sort().values
        tiles = _tiles(dataset.images[rows])
        sheet = png_base64(arrange(tiles, columns=COLUMNS)) if len(rows) else ""
        if len(sheet) <= most_bytes or shown <= 1:
            break
        shown = max(1, int(min(shown, len(rows)) * most_bytes / len(sheet) * 0.95))
    before, after = outcome.clean_logits[rows].softmax(dim=1), outcome.logits[rows].softmax(dim=1)
    was, now = predictions(outcome.clean_logits[rows]).tolist(), predictions(outcome.logits[rows]).tolist()
    steps = outcome.steps[rows].tolist()
    broken = outcome.broken[rows].tolist()
    samples = tuple(
        PicturedSample(
            sample_id=dataset.sample_name(row),
            label=int(outcome.labels[row]),
            before=was[i],
            confidence_before=float(before[i].amax()),
            after=now[i],
            confidence_after=float(after[i].amax()),
            steps=steps[i] if broken[i] and steps[i] >= 0 else None,
        )
        for i, row in enumerate(rows.tolist())
    )
    return SampleGallery(
        attack=record.attack,
        norm=record.norm,
        epsilon=record.epsilon,
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


def _evenly(rows: Tensor, n: int) -> Tensor:
    return rows[torch.arange(n) * len(rows) // max(1, n)]


def _tiles(images: Tensor) -> Tensor:
    """The pictures, made smaller where they are larger than a tile."""
    longest = max(images.shape[2:])
    if longest <= LARGEST_TILE or len(images) == 0:
        return images
    height, width = (max(1, round(side * LARGEST_TILE / longest)) for side in images.shape[2:])
    small = [
        F.interpolate(image[None].float() / 255, size=(height, width), mode="bilinear", antialias=True)
        for image in images
    ]
    return to_bytes(torch.cat(small))
