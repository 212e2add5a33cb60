"""Tables of 256 values a channel, uint8 (C, 256): those of Equalize and AutoContrast, and of what follows them.

While a table waits to be looked up, every further point operation acts on the table, statistics included: a histogram
passes through a table without touching a pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.augment.kernels.compiling import kernel
from assay.augment.kernels.points import change, mean_luma
from assay.augment.operations import CODES

Array = Any  # numpy arrays; numba infers the exact types
I64 = np.int64
UNSIGNED = np.uint64
ONE, TWO, THREE, FOUR = (UNSIGNED(number) for number in (1, 2, 3, 4))
CONTRAST, EQUALIZE, AUTOCONTRAST = CODES["Contrast"], CODES["Equalize"], CODES["AutoContrast"]


@kernel
def extend_table(code: int, magnitude: float, source: Array, waiting: bool, table: Array, counts: Array) -> None:
    """Let one more point operation act after those in the table, of which there are none unless it is ``waiting``.

    ``counts`` is room for int32 (3, 256).
    """
    if EQUALIZE <= code <= AUTOCONTRAST:
        curve = np.empty(256, np.uint8)
        for channel in range(table.shape[0]):
            pixels = source[channel].reshape(source.shape[1] * source.shape[2])
            if code == EQUALIZE:
                _count(pixels, counts)
                if waiting:
                    _pass_through(table[channel], counts)
                _equalize(counts[0], pixels.size, curve)
            elif waiting:
                _count(pixels, counts)
                _pass_through(table[channel], counts)
                low, high = _ends_of_counts(counts[0])
                _stretch(low, high, curve)
            else:
                low, high = _ends(pixels)
                _stretch(low, high, curve)
            for value in range(256):
                table[channel, value] = curve[table[channel, value]] if waiting else curve[value]
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
    """A histogram, in ``counts[0]``; two counters take turns, lest equal neighbours wait for each other."""
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
    for value in range(256):  # half a pixel more keeps the product clear of whole numbers: exact, without a division
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
