"""The scale of stored pixels: what black and white are is judged by their type and by the values of the whole set."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from assay.errors import DataError

DARK = 32  # of 255: a set whose brightest pixel lies below is nearly black
DEPTHS = (8, 10, 12, 14, 16)  # bits of the cameras and scanners whose greys are stored in 16 bits


class Scale(NamedTuple):
    """``factor`` takes stored numbers to 0..255; ``note`` says what was guessed, if anything was."""

    factor: float
    note: str | None = None


def judge_scale(dtype: np.dtype[Any], *, low: float, high: float, whole: bool, where: str) -> Scale:
    """The scale of pixels of ``dtype`` that lie in ``low``..``high`` and are ``whole`` numbers, or not all.

    Bytes are taken as they are, truth values become 0 and 255, floating numbers in [0, 1] are multiplied by 255, and
    other whole numbers in 0..255 are bytes, unless none is above 1. Numbers of 16 bits are scaled by the least of 8,
    10, 12, 14 and 16 bits that holds them all. Whatever does not follow from the type alone is noted, and so is a set
    that is nearly black. Raises :class:`DataError` for all other numbers.
    """
    if dtype.kind == "b":
        return Scale(255)
    if dtype == np.uint8:
        return Scale(1, _darkness(high, white=255))
    if dtype.kind == "f" and 0 <= low <= high <= 1:
        return Scale(255, _darkness(high, white=1))
    if low >= 0 and whole and high <= 1:
        return Scale(255, "no pixel is above 1: taken as black and white")
    if low >= 0 and dtype.newbyteorder("=") == np.uint16:
        bits = next(bits for bits in DEPTHS if high < 1 << bits)
        note = f"no pixel of 16 bits is above {high:.0f}: taken as values of {bits} bits" if bits < 16 else None
        return Scale(255 / ((1 << bits) - 1), note)
    if low >= 0 and whole and high <= 255:
        return Scale(1, _darkness(high, white=255))
    hint = ""
    if low < 0:
        hint = "; normalised images have to be saved before normalisation"
    elif high <= 255:
        hint = " with fractions; round them to whole numbers"
    raise DataError(where, expected="pixels 0..255, or floating in [0, 1]", got=f"{low:.7g}..{high:.7g}{hint}")


def depends_on_all(dtype: np.dtype[Any], *, high: float, whole: bool) -> bool:
    """Whether more pixels, none of them seen yet, could change the scale of those that end at ``high``."""
    if dtype.kind == "b" or dtype == np.uint8:
        return False
    if dtype.kind == "f":
        return high <= 1 and whole
    return high < 1 << DEPTHS[-2] if dtype.newbyteorder("=") == np.uint16 else high <= 1


def _darkness(high: float, *, white: int) -> str | None:
    if high * 255 >= DARK * white:
        return None
    return f"the brightest pixel is {high:.3g} where {white} is white: nearly black, if that is the scale"
