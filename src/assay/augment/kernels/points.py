"""Point operations on one picture (C, H, W): tables of 256 values a channel, chained before they are looked up."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.augment.kernels.compiling import kernel
from assay.augment.operations import CODES

Array = Any  # numpy arrays; numba infers the exact types
F32 = np.float32
I64 = np.int64
U8 = np.uint8
UNSIGNED = np.uint64
ONE = UNSIGNED(1)
BRIGHTNESS, CONTRAST, POSTERIZE = CODES["Brightness"], CODES["Contrast"], CODES["Posterize"]
EQUALIZE, AUTOCONTRAST, INVERT = CODES["Equalize"], CODES["AutoContrast"], CODES["Invert"]


@kernel
def to_byte(value: Any) -> Any:
    """Clip, then cut off the fraction."""
    return U8(min(max(value, F32(0)), F32(255)))


@kernel
def identity_table(table: Array) -> None:
    """Every value to itself."""
    for channel in range(table.shape[0]):
        for value in range(256):
            table[channel, value] = value


@kernel
def look_up(source: Array, table: Array, target: Array) -> None:
    """``target = table[source]``, channel by channel; the two may be the same picture."""
    for channel in range(source.shape[0]):
        for y in range(source.shape[1]):
            for x in range(source.shape[2]):
                target[channel, y, x] = table[channel, source[channel, y, x]]


@kernel
def _blend(table: Array, anchor: float, factor: float) -> None:
    base, weight = F32(anchor), F32(factor)
    for channel in range(table.shape[0]):
        for value in range(256):
            table[channel, value] = to_byte(base + weight * (F32(table[channel, value]) - base))


@kernel
def _mean_luma(source: Array, table: Array) -> float:
    channels, height, width = source.shape
    total = 0
    for y in range(height):
        for x in range(width):
            if channels == 3:
                red, green, blue = table[0, source[0, y, x]], table[1, source[1, y, x]], table[2, source[2, y, x]]
                total += (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
            else:
                total += table[0, source[0, y, x]]
    return float(int(total / (height * width) + 0.5))


@kernel
def _count(source: Array, channel: int, table: Array, counts: Array) -> None:
    """Histogram of the looked-up channel; two counters take turns, lest equal neighbours wait for each other."""
    height, width = source.shape[1:]
    for value in range(256):
        counts[0, value] = counts[1, value] = counts[2, value] = 0
    for y in range(height):
        for x in range(UNSIGNED(width // 2)):
            counts[1, source[channel, y, x + x]] += 1
            counts[2, source[channel, y, x + x + ONE]] += 1
        if width & 1:
            counts[1, source[channel, y, width - 1]] += 1
    for value in range(256):
        counts[0, table[channel, value]] += counts[1, value] + counts[2, value]


@kernel
def _equalize(counts: Array, channel: int, table: Array) -> None:
    total, last, levels = 0, 0, 0
    for value in range(256):
        if counts[0, value]:
            total, last, levels = total + counts[0, value], counts[0, value], levels + 1
    step = (total - last) // 255
    if levels <= 1 or step == 0:
        return
    running = step // 2
    for value in range(256):
        count = counts[0, value]
        counts[0, value] = running
        running += count
    for value in range(256):  # floating division is exact here, and runs in parallel lanes
        counts[0, value] = min(255, int(counts[0, value] / step))
    for value in range(256):
        table[channel, value] = counts[0, table[channel, value]]


@kernel
def _stretch(counts: Array, channel: int, table: Array) -> None:
    low, high = 0, 255
    while low < 255 and counts[0, low] == 0:
        low += 1
    while high > 0 and counts[0, high] == 0:
        high -= 1
    if high <= low:
        return
    scale = 255.0 / (high - low)
    offset = -low * scale
    for value in range(256):
        table[channel, value] = min(255, max(0, int(table[channel, value] * scale + offset)))


@kernel
def extend_table(code: int, magnitude: float, source: Array, table: Array) -> None:
    """Let one more point operation act after those already in the table."""
    if code == BRIGHTNESS:
        _blend(table, 0.0, magnitude)
    elif code == CONTRAST:
        _blend(table, _mean_luma(source, table), magnitude)
    elif EQUALIZE <= code <= AUTOCONTRAST:  # a set literal would be built anew in every call
        counts = np.empty((3, 256), np.int32)
        for channel in range(table.shape[0]):
            _count(source, channel, table, counts)
            if code == EQUALIZE:
                _equalize(counts, channel, table)
            else:
                _stretch(counts, channel, table)
    else:
        mask = 256 - (1 << (8 - int(magnitude))) if code == POSTERIZE else 0
        for channel in range(table.shape[0]):
            for value in range(256):
                old = I64(table[channel, value])
                if code == POSTERIZE:
                    table[channel, value] = old & mask
                elif code == INVERT or old >= magnitude:
                    table[channel, value] = 255 - old
