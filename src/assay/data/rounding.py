"""Pixels of any type of number, one picture after the other, to bytes; what that changes is measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import DataError, OptionError

Planes = NDArray[Any]  # (C, H, W)
WAY_OUT = "if they were normalised, state by what: assay.as_dataset(…, mean=, std=)"
WHOLE = 1e-3  # of a level: what computing in float32 moves a pixel by


class Normalization(NamedTuple):
    """(x − mean) / std of pixels in [0, 1], and who says so: ``stated`` by the user, else found in a transform."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    stated: bool = False

    @property
    def text(self) -> str:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"mean ({mean}) and std ({std})"


class Pixels(NamedTuple):
    """Numbers as they came, and the relative spacing of their type, which torch has more of than NumPy."""

    planes: Planes
    spacing: float


def planes_of_tensor(tensor: Tensor) -> Pixels:
    """The numbers of a tensor; bfloat16 and the like as float32."""
    values = tensor.detach().cpu()
    spacing = torch.finfo(values.dtype).eps if values.dtype.is_floating_point else 0.0
    exact = values.dtype in {torch.float16, torch.float32, torch.float64} or not values.dtype.is_floating_point
    return Pixels((values if exact else values.float()).numpy(), spacing)


class Rounding:
    """Pictures to bytes by their type and values; the whole set decides what 0 and 1 mean.

    Bytes are kept, truth values become 0 and 255, floating numbers in [0, 1] are multiplied by 255 and rounded, whole
    numbers in 0..255 are bytes unless none is above 1. Normalised pixels are taken back by ``normalization``.
    """

    def __init__(self, *, where: str, normalization: Normalization | None) -> None:
        self._where, self._normalization = where, normalization
        self._units: list[int] = []  # places of floating pictures in [0, 1] that are 0 or 1 everywhere
        self._whole: list[int] = []  # places of whole numbers of other types than bytes
        self._fraction: str | None = None  # the first picture with fractions
        self._above: str | None = None  # the first floating picture above 1
        self._highest = 0
        self._change, self._changed, self._first = 0.0, 0, ""
        self._restored = 0
        self._count = 0

    def to_bytes(self, pixels: Pixels, name: str) -> Planes:
        """uint8 (C, H, W), or uint16 where that is their type. Raises :class:`DataError` naming the picture."""
        planes, place = pixels.planes, self._count
        self._count += 1
        kind = planes.dtype.kind
        if kind == "f":
            return self._round(pixels, name, place)
        if kind == "b":
            return planes.astype(np.uint8) * np.uint8(255)
        if kind not in "iu":
            raise DataError(name, expected="pixels that are numbers", got=f"values of type {planes.dtype}")
        if planes.dtype in {np.dtype(np.uint8), np.dtype(np.uint16)}:
            return planes
        low, high = int(planes.min()), int(planes.max())
        if low < 0 or high > 255:
            raise DataError(name, expected="whole pixels in 0..255", got=f"{low}..{high} of type {planes.dtype}")
        self._whole.append(place)
        self._highest = max(self._highest, high)
        return planes.astype(np.uint8)

    def _round(self, pixels: Pixels, name: str, place: int) -> Planes:
        planes, spacing = pixels
        if not np.isfinite(planes).all():
            raise DataError(name, expected="finite pixels", got="NaN or infinity")
        values = planes.astype(np.float64)
        if self._normalization is not None:
            return self._restore(values, spacing, name)
        low, high = float(values.min()), float(values.max())
        integral = bool((values == np.rint(values)).all())
        if low < 0 or high > 255 or (high > 1 and not integral):
            got = f"{low:.4g}..{high:.4g}; {WAY_OUT}"
            raise DataError(name, expected="floating pixels in [0, 1], or whole ones in 0..255", got=got)
        if integral and high > 1:
            self._above = self._above or name
            return values.astype(np.uint8)
        if integral:
            self._units.append(place)
        else:
            self._fraction = self._fraction or name
        return self._to_levels(values, name, tolerance=WHOLE + 255 * spacing / 2)[0]

    def _restore(self, values: NDArray[np.float64], spacing: float, name: str) -> Planes:
        assert self._normalization is not None
        known, channels = self._normalization, len(values)
        if len(known.mean) not in {1, channels}:
            expected = f"{len(known.mean)} channels, as many as {known.text} have"
            raise DataError(name, expected=expected, got=channels)
        mean, std = (np.array(each)[:, None, None] for each in (known.mean, known.std))
        restored = values * std + mean
        tolerance = WHOLE + 255 * spacing / 2 * max(1.0, float(np.abs(values * std).max()))
        low, high = float(restored.min()), float(restored.max())
        if min(low, 1 - high) < -tolerance / 255:
            got = f"{low:.4g}..{high:.4g}"
            raise DataError(name, expected=f"pixels that {known.text} take back to [0, 1]", got=got)
        levels, change = self._to_levels(restored, name, tolerance=tolerance)
        if known.stated and change > tolerance:
            got = f"pixels between them, by up to {change:.2f} of a level: another mean and std, or resized tensors"
            raise DataError(name, expected=f"pixels that {known.text} take back to the levels 0..255", got=got)
        self._restored += 1
        return levels

    def _to_levels(self, values: NDArray[np.float64], name: str, *, tolerance: float) -> tuple[Planes, float]:
        scaled = values * 255
        levels = np.rint(scaled)
        change = float(np.abs(scaled - levels).max())
        if change > min(tolerance, 0.25):  # so coarse a type does not tell one level from the next
            self._first = self._first or name
            self._changed += 1
            self._change = max(self._change, change)
        return np.clip(levels, 0, 255).astype(np.uint8), change

    def finish(self, images: Tensor, *, resized: bool) -> Tensor:
        """``images`` uint8 (N, C, H, W) of all these, in their order, with the meaning of 0 and 1 that all decide."""
        known = self._normalization
        if known is not None and known.stated and not self._restored and self._count:
            raise OptionError("mean", expected="floating pixels that were normalised", got="whole numbers only")
        if self._above and self._fraction:
            got = f"0..255 in {self._above}, [0, 1] in {self._fraction}"
            raise DataError(self._where, expected="one scale of floating pixels", got=got)
        taken_for_white, dark = self._units if self._above else [], self._whole if self.is_black_and_white else []
        if resized and (taken_for_white or dark):
            expected = "pixels 0..255 or floating in [0, 1], so that each picture can be resized by itself"
            raise DataError(self._where, expected=expected, got="pictures of which only the others tell what 1 means")
        images[taken_for_white] //= 255
        images[dark] *= 255
        return images

    @property
    def is_black_and_white(self) -> bool:
        return bool(self._whole) and self._highest <= 1

    def notes(self) -> list[str]:
        known, notes = self._normalization, []
        if known is not None and self._restored:
            origin = "as stated" if known.stated else "found in the transform of the data set"
            notes.append(f"{self._where}: normalised pixels were taken back to [0, 1] by {known.text}, {origin}")
        if self.is_black_and_white:
            notes.append(f"{self._where}: no pixel is above 1: taken as black and white")
        if self._changed:
            change = f"the largest change is {self._change / 255:.2g} ({self._change:.2f} of a level of 1/255)"
            count = f"{self._changed:,} of {self._count:,} pictures, {self._first} the first"
            notes.append(f"{self._where}: floating pixels between the levels of a byte were rounded: {change}; {count}")
        return notes
