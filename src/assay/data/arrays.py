"""Arrays of pixels, however they are stored, to bytes in (N, C, H, W)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import ImageDataset
from assay.data.division import WholeNeededError
from assay.data.labels import Labelling
from assay.data.preparing import prepare_all
from assay.data.reading import Reading
from assay.data.scale import DARK, Scale, depends_on_all, judge_scale
from assay.data.selection import choose_samples
from assay.errors import DataError
from assay.records.preparation import Preparation

CHANNELS = (1, 2, 3, 4)
ROWS = 1024  # images a step, so that converting floats never needs a second copy of the whole array

AnyArray = NDArray[Any]


def build_dataset(
    labelling: Labelling,
    read_images: Callable[[NDArray[np.int64], list[str]], Tensor],
    *,
    name: str,
    split: str,
    reading: Reading,
    notes: Sequence[str] = (),
) -> ImageDataset:
    """The set of all labels; ``read_images`` maps indices to images, uint8 (M, C, H, W), and may add notes."""
    numbers, classes, of_labels = labelling
    divide = None if reading.divide is None else partial(reading.divide, scattered=True)
    chosen = choose_samples(numbers.numpy(), limit=reading.limit, only=reading.only, divide=divide)
    ids = torch.from_numpy(chosen)
    of_images: list[str] = []
    images = prepare_all(read_images(chosen, of_images), reading.preparation)
    all_notes = (*notes, *of_labels, *of_images)
    return ImageDataset(images, numbers[ids], classes, name=name, split=split, ids=ids, notes=all_notes)


def to_image_bytes(
    array: AnyArray, *, where: str, chosen: NDArray[np.int64] | None = None, notes: list[str] | None = None
) -> Tensor:
    """uint8 (M, C, H, W) from images stored as (N, H, W), (N, H, W, C), (N, C, H, W) or square rows (N, H·H).

    ``chosen`` int64 (M,) picks images; the scale of the numbers is judged by all, as
    :func:`assay.data.scale.judge_scale` does. What had to be guessed is added to ``notes``.

    Raises :class:`DataError` when the layout is ambiguous or the scale unknown.
    """
    placed = channels_first(array, where=where)
    if 0 in placed.shape[2:]:
        raise DataError(where, expected="pictures of at least one pixel", got=f"shape {array.shape}")
    factor, note = find_scale(placed, where=where)
    if notes is not None:
        notes += [f"{where}: {note}"] if note else []
        notes += [f"{where}: rows of numbers, taken as square grey pictures"] if array.ndim == 2 else []
    if chosen is not None:
        placed = placed[chosen]
    if placed.dtype == np.uint8:
        return torch.from_numpy(np.array(placed, order="C"))
    images = np.empty(placed.shape, np.uint8)
    for start in range(0, len(placed), ROWS):
        images[start : start + ROWS] = np.rint(placed[start : start + ROWS].astype(np.float64) * factor)
    return torch.from_numpy(images)


def channels_first(array: AnyArray, *, where: str) -> AnyArray:
    """A view (N, C, H, W) of images in any layout that follows from the shape."""
    shape = array.shape
    expected = "images as (N, H, W), (N, H, W, C) or (N, C, H, W)"
    if array.ndim == 2 and shape[1] > 0:
        side = math.isqrt(shape[1])
        if side * side == shape[1]:
            return array.reshape(-1, 1, side, side)
        raise DataError(where, expected=f"{expected}, or rows of a square number of grey pixels", got=f"shape {shape}")
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        raise DataError(where, expected=expected, got=f"shape {shape}")
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first and last:
        got = f"{shape}, which could be either"
        raise DataError(where, expected="a shape that tells channels from pixels", got=got)
    if not first and not last:
        raise DataError(where, expected=f"{expected} with 1 to 4 channels", got=f"shape {shape}")
    return array if first else array.transpose(0, 3, 1, 2)


def find_scale(array: AnyArray, *, where: str) -> Scale:
    """The scale of images (N, C, H, W), by :func:`assay.data.scale.judge_scale`."""
    kind = array.dtype.kind
    if kind not in "biuf":
        raise DataError(where, expected="numbers", got=f"values of type {array.dtype}")
    if kind == "b" or array.size == 0:
        return Scale(255 if kind == "b" else 1)
    low, high, whole = _value_range(array, where=where)
    return judge_scale(array.dtype, low=low, high=high, whole=whole, where=where)


def _value_range(array: AnyArray, *, where: str) -> tuple[float, float, bool]:
    """Smallest, largest, and whether all are whole numbers; raises at the first image that is not finite.

    Bytes are searched only until one is bright.
    """
    low, high, integral = math.inf, -math.inf, True
    for start in range(0, len(array), ROWS):
        part = array[start : start + ROWS]
        if part.dtype.kind == "f":
            finite = np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
            if not finite.all():
                first = start + int((~finite).argmax())
                raise DataError(f"{where}[{first}]", expected="finite pixels", got="NaN or infinity")
            integral = integral and bool((part == np.rint(part)).all())
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        if part.dtype == np.uint8 and high >= DARK:
            break
    return low, high, integral


def check_independent(array: AnyArray, *, where: str) -> None:
    """Raise :class:`WholeNeededError` where more images of the set could change the scale of these, a shard of it."""
    if array.dtype.kind not in "iuf" or array.dtype == np.uint8 or array.size == 0:
        return
    _, high, integral = _value_range(array, where=where)
    if depends_on_all(array.dtype, high=high, whole=integral):
        expected = "pixels of which each shard tells the scale"
        raise WholeNeededError(where, expected=expected, got=f"none above {high:g} of type {array.dtype}")


def resize_all(images: Tensor, size: int | None) -> Tensor:
    """Every image (N, C, H, W) to ``size`` x ``size``: the short side resized, the centre cut out; None: unchanged."""
    return prepare_all(images, None if size is None else Preparation.square(size))
