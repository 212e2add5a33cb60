"""Geometry on one image (C, H, W): for every target pixel, where in the source it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.augment.kernels.points import I64, U8, U32, UNSIGNED, Array, kernel
from assay.augment.operations import CODES

SHEAR_X, SHEAR_Y, ROTATE = CODES["ShearX"], CODES["ShearY"], CODES["Rotate"]


@kernel
def warp(
    code: int, magnitude: float, fill: Array, bilinear: bool, source: Array, words: Array, places: Array, target: Array
) -> None:
    """A shear or a rotation."""
    height, width = source.shape[1], source.shape[2]
    matrix = np.empty(6)
    _invert(code, magnitude, height, width, matrix)
    if bilinear:
        _turn_bilinear(matrix, source, fill, target)
    elif code == ROTATE or abs(magnitude) * max(height, width) > 16000.0:  # too large for fixed point
        _turn(matrix, source, fill, words, places, target)
    elif code == SHEAR_X:
        _shear_x(_fixed(magnitude), _fixed(0.5 + magnitude * 0.5), source, fill, target)
    else:
        _shear_y(_fixed(magnitude), _fixed(0.5 + magnitude * 0.5), source, fill, target)


@kernel
def _fixed(value: float) -> int:
    return int(np.floor(value * 65536.0 + 0.5))


@kernel
def _invert(code: int, magnitude: float, height: int, width: int, matrix: Array) -> None:
    """The inverse map (x, y) -> (a·x + b·y + c, d·x + e·y + f) of a shear or a rotation."""
    matrix[0], matrix[1], matrix[2], matrix[3], matrix[4], matrix[5] = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0
    if code == SHEAR_X:
        matrix[1] = magnitude
    elif code == SHEAR_Y:
        matrix[3] = magnitude
    else:
        angle = -np.radians(magnitude % 360.0)
        cosine, sine = round(np.cos(angle), 15), round(np.sin(angle), 15)
        matrix[0], matrix[1], matrix[3], matrix[4] = cosine, sine, -sine, cosine
        matrix[2] = cosine * (-width / 2) + sine * (-height / 2) + 0.0 + width / 2
        matrix[5] = -sine * (-width / 2) + cosine * (-height / 2) + 0.0 + height / 2


@kernel
def _turn(matrix: Array, source: Array, fill: Array, words: Array, places: Array, target: Array) -> None:
    """Nearest neighbours. The four bytes of a pixel are packed in one word, so that each place is read once.

    ``words`` is a buffer, uint32 (H·W + 1,), the last element for what lies outside; ``places`` one of uint32 (H·W,).
    """
    channels, height, width = source.shape
    old, new = source.reshape(source.size), target.reshape(target.size)
    area = UNSIGNED(height * width)
    words[:] = 0
    for channel in range(channels):
        first, bits = UNSIGNED(channel) * area, U32(8 * channel)
        for i in range(area):
            words[i] |= U32(old[first + i]) << bits
        words[area] |= U32(fill[channel]) << bits
    _find_places(matrix, height, width, places)
    for i in range(area):
        places[i] = words[places[i]]
    for channel in range(channels):
        first, bits = UNSIGNED(channel) * area, U32(8 * channel)
        for i in range(area):
            new[first + i] = U8(places[i] >> bits)


@kernel
def _find_places(matrix: Array, height: int, width: int, places: Array) -> None:
    """Where each pixel comes from, H·W for outside: 16.16 fixed point where the corners allow it, else floating point.

    So does PIL.
    """
    a, b, c, d, e, f = matrix[0], matrix[1], matrix[2], matrix[3], matrix[4], matrix[5]
    fits = True
    for x in (0, width):
        for y in (0, height):
            fits = fits and abs(x * a + y * b + c) < 32768.0 and abs(x * d + y * e + f) < 32768.0
    outside = U32(height * width)
    column, row = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    fixed_column, fixed_row = _fixed(column), _fixed(row)
    fixed_a, fixed_b, fixed_d, fixed_e = _fixed(a), _fixed(b), _fixed(d), _fixed(e)
    for y in range(height):
        first = UNSIGNED(y * width)
        if fits:
            xx, yy = fixed_column + y * fixed_b, fixed_row + y * fixed_e
            for x in range(UNSIGNED(width)):
                u, v = (xx + I64(x) * fixed_a) >> 16, (yy + I64(x) * fixed_d) >> 16
                inside = (UNSIGNED(u) < UNSIGNED(width)) & (UNSIGNED(v) < UNSIGNED(height))  # huge where negative
                places[first + x] = U32(v * width + u) if inside else outside
        else:
            u_exact, v_exact = column, row
            for x in range(UNSIGNED(width)):
                inside = 0.0 <= u_exact < width and 0.0 <= v_exact < height
                places[first + x] = U32(int(v_exact) * width + int(u_exact)) if inside else outside
                u_exact, v_exact = u_exact + a, v_exact + d
            column, row = column + b, row + e


@kernel
def _turn_bilinear(matrix: Array, source: Array, fill: Array, target: Array) -> None:
    """Bilinear in double precision, cut to an integer, the border continued by half a pixel, as PIL does."""
    channels, height, width = source.shape
    a, b, c, d, e, f = matrix[0], matrix[1], matrix[2], matrix[3], matrix[4], matrix[5]
    for y in range(height):
        for x in range(width):
            u, v = a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f
            if not (0.0 <= u < width and 0.0 <= v < height):
                for channel in range(channels):
                    target[channel, y, x] = fill[channel]
                continue
            left, top = int(u + 0.5) - 1, int(v + 0.5) - 1
            du, dv = u - 0.5 - left, v - 0.5 - top
            x0, x1 = max(left, 0), min(left + 1, width - 1)
            y0, y1 = max(top, 0), min(top + 1, height - 1)
            for channel in range(channels):
                p, q = float(source[channel, y0, x0]), float(source[channel, y1, x0])
                upper = p + (float(source[channel, y0, x1]) - p) * du
                lower = q + (float(source[channel, y1, x1]) - q) * du
                target[channel, y, x] = int(upper + (lower - upper) * dv)


U1, U2, U3, U4, U5, U6, U7 = (UNSIGNED(number) for number in range(1, 8))


@kernel
def copy(source: Array, target: Array) -> None:
    _copy(source.reshape(source.size), 0, target.reshape(target.size), 0, source.size)


@kernel
def flip(source: Array, target: Array) -> None:
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
def _shear_x(step: int, start: int, source: Array, fill: Array, target: Array) -> None:
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
def _shear_y(step: int, start: int, source: Array, fill: Array, target: Array) -> None:
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
def _copy_within_row(old: Array, start: int, new: Array, begin: int, count: int, available: int) -> None:
    """``count`` bytes, eight at a time; excess bytes, within ``available``, are overwritten by what follows."""
    done = 0
    while done < count and done + 8 <= available:
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
