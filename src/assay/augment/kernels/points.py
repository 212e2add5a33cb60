"""Point operations with a closed form: arithmetic on bytes, which runs in the processor's wide registers.

``old`` and ``new`` are flat arrays of bytes: the pixels of an image, or a table of 256 values a channel. They may be
the same array. An index without a sign spares numba its check for negative ones, and the loops vectorise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

from assay.augment.operations import CODES

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function, *, cached: bool = False) -> Function:
    """Compile at the first call; calls between kernels become part of their caller.

    That is forced: passing arrays to a function takes as long as moving a short row does.
    """
    options = {"nogil": True, "error_model": "numpy", "cache": cached, "forceinline": not cached}
    return njit(**options)(function)  # type: ignore[no-any-return]  # numba is untyped


Array = Any  # numpy arrays; numba infers the exact types
F32 = np.float32
I32 = np.int32
I64 = np.int64
U8 = np.uint8
U32 = np.uint32
UNSIGNED = np.uint64
BRIGHTNESS, CONTRAST, POSTERIZE = CODES["Brightness"], CODES["Contrast"], CODES["Posterize"]
INVERT = CODES["Invert"]
_ADDENDS = 1 << 16  # so many lumas add up in 32 bits without overflow


@kernel
def to_byte(value: Any) -> Any:
    """Cut off the fraction, then clip: the same as the reverse, and cheaper."""
    truncated = I32(value)
    truncated = truncated if truncated > I32(0) else I32(0)  # `max` would widen to 64 bits
    return U8(truncated if truncated < I32(255) else I32(255))


@kernel
def change(code: int, magnitude: float, mean: float, old: Array, new: Array) -> None:
    """Brightness, Contrast (about ``mean``), Posterize, Solarize or Invert."""
    if BRIGHTNESS <= code <= CONTRAST:
        _blend(mean if code == CONTRAST else 0.0, magnitude, old, new)
    elif code == POSTERIZE:
        _keep_bits(int(magnitude), old, new)
    else:
        _negate_from(0 if code == INVERT else int(np.ceil(magnitude)), old, new)


@kernel
def _blend(anchor: float, factor: float, old: Array, new: Array) -> None:
    base, weight = F32(anchor), F32(factor)
    for i in range(UNSIGNED(old.size)):
        new[i] = to_byte(base + weight * (F32(old[i]) - base))


@kernel
def _keep_bits(bits: int, old: Array, new: Array) -> None:
    mask = U8(256 - (1 << (8 - bits)))
    for i in range(UNSIGNED(old.size)):
        new[i] = old[i] & mask


@kernel
def _negate_from(threshold: int, old: Array, new: Array) -> None:
    lowest, anything = U8(min(threshold, 255)), threshold <= 255
    for i in range(UNSIGNED(old.size)):
        new[i] = U8(255) - old[i] if anything and old[i] >= lowest else old[i]


@kernel
def mean_luma(source: Array) -> float:
    """The rounded mean of the luma over an image (C, H, W); the first channel unless there are three."""
    pixels = source.reshape(source.size)
    area = source.shape[1] * source.shape[2]
    green, blue = UNSIGNED(area), UNSIGNED(2 * area)
    total = I64(0)
    for start in range(0, area, _ADDENDS):
        part = U32(0)
        for i in range(UNSIGNED(start), UNSIGNED(min(start + _ADDENDS, area))):
            if source.shape[0] == 3:
                scaled = U32(pixels[i]) * U32(19595) + U32(pixels[i + green]) * U32(38470)
                part = U32(part + ((scaled + U32(pixels[i + blue]) * U32(7471) + U32(0x8000)) >> U32(16)))
            else:
                part = U32(part + U32(pixels[i]))
        total += I64(part)
    return float(int(total / area + 0.5))


ONE, TWO, THREE, FOUR = (UNSIGNED(number) for number in (1, 2, 3, 4))
EQUALIZE, AUTOCONTRAST = CODES["Equalize"], CODES["AutoContrast"]


@kernel
def extend_table(code: int, magnitude: float, source: Array, pending: bool, table: Array, counts: Array) -> None:
    """Compose one more point operation with those in the table, of which there are none unless it is ``pending``.

    ``counts`` is a buffer, int32 (3, 256).
    """
    if EQUALIZE <= code <= AUTOCONTRAST:
        curve = np.empty(256, np.uint8)
        for channel in range(table.shape[0]):
            pixels = source[channel].reshape(source.shape[1] * source.shape[2])
            if code == EQUALIZE:
                _count(pixels, counts)
                if pending:
                    _pass_through(table[channel], counts)
                _equalize(counts[0], pixels.size, curve)
            elif pending:
                _count(pixels, counts)
                _pass_through(table[channel], counts)
                low, high = _ends_of_counts(counts[0])
                _stretch(low, high, curve)
            else:
                low, high = _ends(pixels)
                _stretch(low, high, curve)
            for value in range(256):
                table[channel, value] = curve[table[channel, value]] if pending else curve[value]
    else:
        mean = 0.0
        if code == CONTRAST:
            seen = np.empty_like(source)
            look_up(source, table, seen)
            mean = mean_luma(seen)
        flat = table.reshape(table.size)
        change(code, magnitude, mean, flat, flat)


@kernel
def look_up(source: Array, table: Array, target: Array) -> None:
    """``target = table[source]``, channel by channel."""
    area = source.shape[1] * source.shape[2]
    for channel in range(source.shape[0]):
        old, new, row = source[channel].reshape(area), target[channel].reshape(area), table[channel]
        fours = UNSIGNED(area // 4 * 4)
        for i in range(UNSIGNED(0), fours, FOUR):  # four at once keep the processor's ports busy
            a, b, c, d = row[old[i]], row[old[i + ONE]], row[old[i + TWO]], row[old[i + THREE]]
            new[i], new[i + ONE], new[i + TWO], new[i + THREE] = a, b, c, d
        for i in range(fours, UNSIGNED(area)):
            new[i] = row[old[i]]


@kernel
def _count(pixels: Array, counts: Array) -> None:
    """A histogram, in ``counts[0]``; two counters alternate, so that equal neighbours do not depend on each other."""
    even, odd = counts[0], counts[1]
    for value in range(256):
        even[value] = odd[value] = 0
    for i in range(UNSIGNED(0), UNSIGNED(pixels.size // 2 * 2), TWO):
        even[pixels[i]] += 1
        odd[pixels[i + ONE]] += 1
    if pixels.size & 1:
        even[pixels[pixels.size - 1]] += 1
    for value in range(256):
        even[value] += odd[value]


@kernel
def _pass_through(row: Array, counts: Array) -> None:
    """The histogram of the pixels after ``row`` of the table is looked up."""
    moved = counts[2]
    moved[:] = 0
    for value in range(256):
        moved[row[value]] += counts[0, value]
    counts[0, :] = moved


@kernel
def _equalize(counts: Array, area: int, curve: Array) -> None:
    top = 255
    while counts[top] == 0:
        top -= 1
    step = (area - counts[top]) // 255
    running = step // 2
    for value in range(256):
        count = counts[value]
        counts[value] = running
        running += count
    share = 1.0 / max(step, 1)
    for value in range(256):  # with half a pixel more the product is never near an integer: exact, without a division
        curve[value] = min(255, int((counts[value] + 0.5) * share)) if step else value


@kernel
def _ends(pixels: Array) -> Any:
    low, high = np.uint8(255), np.uint8(0)
    for i in range(UNSIGNED(pixels.size)):
        low, high = min(low, pixels[i]), max(high, pixels[i])
    return I64(low), I64(high)  # `int` would leave them without a sign


@kernel
def _ends_of_counts(counts: Array) -> tuple[int, int]:
    low, high = 0, 255
    while counts[low] == 0:
        low += 1
    while counts[high] == 0:
        high -= 1
    return low, high


@kernel
def _stretch(low: int, high: int, curve: Array) -> None:
    scale = 255.0 / max(high - low, 1)
    offset = -low * scale
    for value in range(256):
        curve[value] = min(255, max(0, int(value * scale + offset))) if high > low else value
