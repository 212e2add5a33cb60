"""Geometry on one picture (C, H, W): for every target pixel, where in the source it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.augment.kernels.compiling import kernel
from assay.augment.operations import CODES

Array = Any  # numpy arrays; numba infers the exact types
UNSIGNED = np.uint64
SHEAR_X, SHEAR_Y = CODES["ShearX"], CODES["ShearY"]


@kernel
def shift(source: Array, down: Any, right: Any, fill: Array, target: Array) -> None:
    """Move by whole pixels; what comes in from outside is ``fill``."""
    channels, height, width = source.shape
    first, last = min(max(right, 0), width), max(min(width + right, width), 0)
    top, bottom = min(max(down, 0), height), max(min(height + down, height), 0)
    if first >= last or top >= bottom:
        first, last, top, bottom = width, width, height, height
    old, new = source.reshape(source.size), target.reshape(target.size)
    run = max((bottom - top - 1) * width + last - first, 0)
    for channel in range(channels):
        blank, start = fill[channel], channel * height * width
        _blank(new, start, top * width, blank)
        begin = start + top * width + first
        _copy(old, begin - down * width - right, new, begin, run)  # what wraps around a row's end is blanked below
        _blank(new, start + bottom * width, (height - bottom) * width, blank)
        for y in range(top, bottom):
            _blank(new, start + y * width, first, blank)
            _blank(new, start + y * width + last, width - last, blank)


@kernel
def _copy(source: Array, start: int, target: Array, begin: int, count: int) -> None:
    """``count`` values; indices without a sign spare numba its check for negative ones, and the loop becomes a move."""
    here, there = UNSIGNED(start), UNSIGNED(begin)
    for x in range(UNSIGNED(count)):
        target[there + x] = source[here + x]


@kernel
def _blank(target: Array, begin: int, count: int, value: int) -> None:
    there = UNSIGNED(begin)
    if count > 0:
        for x in range(UNSIGNED(count)):
            target[there + x] = value


@kernel
def _shift_row(old: Array, start: int, right: int, width: int, blank: int, new: Array) -> None:
    first, last = min(max(right, 0), width), max(min(width + right, width), 0)
    if first >= last:
        _blank(new, start, width, blank)
        return
    _blank(new, start, first, blank)
    _copy(old, start + first - right, new, start + first, last - first)
    _blank(new, start + last, width - last, blank)


@kernel
def _fixed(value: float) -> int:
    return int(np.floor(value * 65536.0 + 0.5))


@kernel
def shear(code: int, slope: float, source: Array, fill: Array, target: Array) -> None:
    """Nearest neighbours in 16.16 fixed point: a shear moves whole rows, or whole columns, by whole pixels."""
    channels, height, width = source.shape
    step, start = _fixed(slope), _fixed(0.5 + slope * 0.5)
    if code == SHEAR_X:
        old, new = source.reshape(source.size), target.reshape(target.size)
        for y in range(height):
            left = (start + y * step) >> 16
            for channel in range(channels):
                _shift_row(old, (channel * height + y) * width, -left, width, fill[channel], new)
        return
    ups = np.empty(width, np.int64)
    for x in range(width):
        ups[x] = (start + x * step) >> 16
    for channel in range(channels):
        blank = fill[channel]
        for y in range(height):
            for x in range(UNSIGNED(width)):
                row = UNSIGNED(y + ups[x])  # a negative row becomes a huge one
                target[channel, y, x] = source[channel, row, x] if row < UNSIGNED(height) else blank


@kernel
def inverse_map(code: int, magnitude: float, height: int, width: int, matrix: Array) -> None:
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
def turn(matrix: Array, source: Array, fill: Array, target: Array) -> None:
    """Nearest neighbours: 16.16 fixed point where the corners allow it, else floating point, as PIL does."""
    channels, height, width = source.shape
    a, b, c, d, e, f = matrix[0], matrix[1], matrix[2], matrix[3], matrix[4], matrix[5]
    fits = True
    for x in (0, width):
        for y in (0, height):
            fits = fits and abs(x * a + y * b + c) < 32768.0 and abs(x * d + y * e + f) < 32768.0
    places, flat = np.empty(width, np.int64), source.reshape(source.size)
    column, row = c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5
    fixed_column, fixed_row = _fixed(column), _fixed(row)
    fixed_a, fixed_b, fixed_d, fixed_e = _fixed(a), _fixed(b), _fixed(d), _fixed(e)
    for y in range(height):
        if fits:
            xx, yy = fixed_column + y * fixed_b, fixed_row + y * fixed_e
            for x in range(width):
                u, v = (xx + x * fixed_a) >> 16, (yy + x * fixed_d) >> 16
                places[x] = v * width + u if (0 <= u < width) and (0 <= v < height) else -1
        else:
            u_exact, v_exact = column, row
            for x in range(width):
                inside = 0.0 <= u_exact < width and 0.0 <= v_exact < height
                places[x] = int(v_exact) * width + int(u_exact) if inside else -1
                u_exact, v_exact = u_exact + a, v_exact + d
            column, row = column + b, row + e
        for channel in range(channels):
            first, blank = channel * height * width, fill[channel]
            for x in range(UNSIGNED(width)):
                place = places[x]
                target[channel, y, x] = flat[UNSIGNED(place + first)] if place >= 0 else blank


@kernel
def turn_bilinear(matrix: Array, source: Array, fill: Array, target: Array) -> None:
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
