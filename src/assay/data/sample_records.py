"""Records of the data themselves: the metadata of samples that were measured, and the range of their pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from assay.data.dataset import ImageDataset, identify_samples
from assay.data.metadata import Column
from assay.records.pixels import PixelRange
from assay.records.sample_table import ColumnType, SampleColumn, SampleTable
from assay.records.samples import SampleSet

MOST_TEXT = 1 << 20  # characters of the different texts of a column
MOST_VALUES = 200_000  # different values of a column
ROWS = 1024  # images a step
_TYPES: dict[str, ColumnType] = {"b": "truth", "i": "whole", "f": "number", "O": "text"}


def keep_metadata(dataset: ImageDataset) -> SampleTable | None:
    """The metadata of ``dataset`` as a record; None without any.

    Columns of long texts that nearly all differ, such as captions, are left out of it, and named.
    """
    return keep_columns(dataset.metadata, samples=identify_samples(dataset), order=dataset.ids.argsort())


def keep_columns(metadata: Mapping[str, Column], *, samples: SampleSet, order: Tensor) -> SampleTable | None:
    """The same of columns (N,) whose rows in the ``order`` int64 (N,) are the ``samples``."""
    if not metadata:
        return None
    columns, left_out = [], []
    for name, column in metadata.items():
        if reason := _too_long(column):
            left_out.append(f"{name}: {reason}")
        else:
            columns.append(SampleColumn.of(name, column[order.numpy()].tolist(), type=_TYPES[column.dtype.kind]))
    return SampleTable(samples=samples, columns=tuple(columns), left_out=tuple(left_out))


def _too_long(column: Column) -> str | None:
    distinct = set(column.tolist())
    if len(distinct) > MOST_VALUES:
        return f"{len(distinct):,} different values"
    length = sum(len(value) for value in distinct if isinstance(value, str))
    return f"{len(distinct):,} different texts of {length:,} characters" if length > MOST_TEXT else None


def measure_pixel_range(dataset: ImageDataset) -> PixelRange:
    """The values of all pixels, as stored."""
    lowest, highest, used = [], [], np.zeros(256, bool)
    for images in torch.split(dataset.images, ROWS):
        pixels = images.flatten(1)
        low, high = torch.aminmax(pixels, dim=1)
        lowest.append(low)
        highest.append(high)
        used |= np.bincount(pixels.numpy().reshape(-1), minlength=256) > 0
    low, high = torch.cat(lowest), torch.cat(highest)
    return PixelRange(
        n=len(dataset),
        lowest=int(low.min()),
        highest=int(high.max()),
        levels=int(used.sum()),
        median_lowest=float(np.median(low.numpy())),
        median_highest=float(np.median(high.numpy())),
    )
