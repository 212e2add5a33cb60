"""Operations that move bytes as they are, on one picture (C, H, W): whole runs of memory at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.augment.kernels.compiling import kernel

Array = Any  # numpy arrays; numba infers the exact types
UNSIGNED = np.uint64  # an index without a sign spares numba its check for negative ones, and a loop becomes a move
U1, U2, U3, U4, U5, U6, U7 = (UNSIGNED(number) for number in range(1, 8))


@kernel
def copy(source: Array, target: Array) -> None:
    """Every pixel as it is."""
    _copy(source.reshape(source.size), 0, target.reshape(target.size), 0, source.size)


@kernel
def flip(source: Array, target: Array) -> None:
    """Mirror left and right."""
    channels, height, width = source.shape
    old, new = source.reshape(source.size), target.reshape(target.size)
    for row in range(channels * height):
        first, last = UNSIGNED(row * width), UNSIGNED(row * width + width - 1)
        for x in range(UNSIGNED(width)):
            new[first + x] = old[last - x]


@kernel
def cutout(side: float, row: int, column: int, fill: Array, source: Array, target: Array) -> None:
    """Blank the square of this side about (row, column), as far as it lies inside."""
    channels, height, width = source.shape
    length = int(side)
    top, left = row - length // 2, column - length // 2
    first, last = max(0, left), min(width, left + length)
    copy(source, target)
    new = target.reshape(target.size)
    for channel in range(channels):
        for y in range(max(0, top), min(height, top + length)):
            _blank(new, (channel * height + y) * width + first, last - first, fill[channel])


@kernel
def shift(source: Array, down: Any, right: Any, fill: Array, target: Array) -> None:
    """Move by whole pixels; what comes in from outside is ``fill``."""
    channels, height, width = source.shape
    top, bottom = min(max(down, 0), height), max(min(height + down, height), 0)
    if top >= bottom:
        top = bottom = height
    old, new = source.reshape(source.size), target.reshape(target.size)
    for channel in range(channels):
        start, blank = channel * height * width, fill[channel]
        _blank(new, start, top * width, blank)
        _move_rows(old, start + (top - down) * width, right, new, start + top * width, bottom - top, width, blank)
        _blank(new, start + bottom * width, (height - bottom) * width, blank)


@kernel
def shear_x(step: int, start: int, source: Array, fill: Array, target: Array) -> None:
    """Row y moves left by (start + y·step) / 2¹⁶ whole pixels; neighbours that move alike move together."""
    channels, height, width = source.shape
    old, new = source.reshape(source.size), target.reshape(target.size)
    y = 0
    while y < height:
        left, begin = (start + y * step) >> 16, y
        while y < height and (start + y * step) >> 16 == left:
            y += 1
        for channel in range(channels):
            place = (channel * height + begin) * width
            _move_rows(old, place, -left, new, place, y - begin, width, fill[channel])


@kernel
def shear_y(step: int, start: int, source: Array, fill: Array, target: Array) -> None:
    """Column x moves up by (start + x·step) / 2¹⁶ whole pixels; of each row, neighbours that move alike go together."""
    channels, height, width = source.shape
    old, new = source.reshape(source.size), target.reshape(target.size)
    ends, ups = np.empty(width, np.int64), np.empty(width, np.int64)
    bands, x = 0, 0
    while x < width:
        ups[bands] = (start + x * step) >> 16
        while x < width and (start + x * step) >> 16 == ups[bands]:
            x += 1
        ends[bands] = x
        bands += 1
    for row in range(channels * height):
        begin, y = row * width, row % height
        for band in range(bands):
            x = ends[band - 1] if band else 0
            if 0 <= y + ups[band] < height:
                place = begin + x
                _copy_within_row(old, place + ups[band] * width, new, place, ends[band] - x, width - x)
            else:
                _blank(new, begin + x, ends[band] - x, fill[row // height])


@kernel
def _copy_within_row(old: Array, start: int, new: Array, begin: int, count: int, room: int) -> None:
    """A handful of bytes, eight at a time; what is too much, yet within ``room``, is overwritten by what follows."""
    done = 0
    while done < count and done + 8 <= room:
        i, j = UNSIGNED(start + done), UNSIGNED(begin + done)
        a, b, c, d = old[i], old[i + U1], old[i + U2], old[i + U3]
        e, f, g, h = old[i + U4], old[i + U5], old[i + U6], old[i + U7]
        new[j], new[j + U1], new[j + U2], new[j + U3] = a, b, c, d  # all are read by now: one load, one store
        new[j + U4], new[j + U5], new[j + U6], new[j + U7] = e, f, g, h
        done += 8
    while done < count:
        new[UNSIGNED(begin + done)] = old[UNSIGNED(start + done)]
        done += 1


@kernel
def _move_rows(old: Array, start: int, right: int, new: Array, begin: int, count: int, width: int, blank: int) -> None:
    """``count`` rows from ``old[start]`` on to ``new[begin]`` on, each moved right by so many pixels."""
    if abs(right) >= width:
        _blank(new, begin, count * width, blank)
    elif count > 0:
        gap = abs(right)
        _copy(old, start + max(-right, 0), new, begin + max(right, 0), count * width - gap)
        edge = begin if right > 0 else begin + width - gap
        for row in range(count):  # what the one long move carried around a row's end
            _blank(new, edge + row * width, gap, blank)


@kernel
def _copy(old: Array, start: int, new: Array, begin: int, count: int) -> None:
    here, there = UNSIGNED(start), UNSIGNED(begin)
    for x in range(UNSIGNED(count)):
        new[there + x] = old[here + x]


@kernel
def _blank(new: Array, begin: int, count: int, value: int) -> None:
    there = UNSIGNED(begin)
    if count > 0:
        for x in range(UNSIGNED(count)):
            new[there + x] = value
