"""Operations that mix channels or neighbours, on one picture (C, H, W).

Single precision is exact here: luma times 2¹⁶ and thirteen bytes stay below 2²⁴, where float32 holds every integer. It
lets the loops run sixteen pixels at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.augment.kernels.compiling import kernel
from assay.augment.kernels.points import to_byte

Array = Any  # numpy arrays; numba infers the exact types
F32 = np.float32
I32 = np.int32
I64 = np.int64
UNSIGNED = np.uint64  # an index without a sign spares numba its check for negative ones, and loops vectorise
ONE, TWO = UNSIGNED(1), UNSIGNED(2)


@kernel
def color(factor: float, source: Array, target: Array) -> None:
    """Blend with luma; a picture of one channel is its own luma."""
    channels, height, width = source.shape
    if channels == 1:
        copy(source, target)
        return
    weight = F32(factor)
    for y in range(height):
        for x in range(width):
            red, green, blue = F32(source[0, y, x]), F32(source[1, y, x]), F32(source[2, y, x])
            scaled = red * F32(19595) + green * F32(38470) + blue * F32(7471) + F32(0x8000)
            luma = F32(I32(scaled * F32(2.0**-16)))
            target[0, y, x] = to_byte(luma + weight * (red - luma))
            target[1, y, x] = to_byte(luma + weight * (green - luma))
            target[2, y, x] = to_byte(luma + weight * (blue - luma))


@kernel
def sharpness(factor: float, source: Array, target: Array) -> None:
    """Blend with the mean over 3×3 in which the middle counts five times; the border is copied."""
    channels, height, width = source.shape
    copy(source, target)
    if height < 3 or width < 3:
        return
    weight = F32(factor)
    sums = np.empty(width, np.float32)
    for channel in range(channels):
        for y in range(UNSIGNED(height - 2)):
            for x in range(UNSIGNED(width)):
                upper, lower = F32(source[channel, y, x]), F32(source[channel, y + TWO, x])
                sums[x] = upper + F32(source[channel, y + ONE, x]) + lower
            for x in range(UNSIGNED(width - 2)):
                value = F32(source[channel, y + ONE, x + ONE])
                total = sums[x] + sums[x + ONE] + sums[x + TWO] + F32(4) * value
                smooth = F32(I32(total * F32(1 / 13) + F32(0.5)))
                target[channel, y + ONE, x + ONE] = to_byte(smooth + weight * (value - smooth))


@kernel
def hue(turn: float, source: Array, target: Array) -> None:
    """To hue, saturation and value in bytes, turn the hue modulo 256, and back."""
    channels, height, width = source.shape
    if channels == 1:
        copy(source, target)
        return
    shift = int(turn * 255)
    for y in range(height):
        for x in range(width):
            red, green, blue = I64(source[0, y, x]), I64(source[1, y, x]), I64(source[2, y, x])
            high, low = max(red, green, blue), min(red, green, blue)
            angle, saturation = 0, 0
            if high != low:
                spread = F32(high - low)
                from_red, from_green = F32(high - red) / spread, F32(high - green) / spread
                from_blue = F32(high - blue) / spread
                if red == high:
                    sextant = F32(from_blue - from_green)
                elif green == high:
                    sextant = F32(2.0 + from_red - from_blue)
                else:
                    sextant = F32(4.0 + from_green - from_red)
                whole = float(sextant) / 6.0 + 1.0
                angle = int(float(F32(whole - 1.0 if whole >= 1.0 else whole)) * 255.0)
                saturation = int(float(spread / F32(high)) * 255.0)
            _fill_rgb((angle + shift) & 255, saturation, high, target, y, x)


@kernel
def _fill_rgb(angle: int, saturation: int, value: Any, target: Array, y: int, x: int) -> None:
    if saturation == 0:
        target[0, y, x] = target[1, y, x] = target[2, y, x] = value
        return
    sextant = int(F32(angle) * 6.0 / 255.0)
    rest = F32(F32(angle) * 6.0 / 255.0 - sextant)
    share = F32(F32(saturation) / 255.0)
    p = _round(value * (1.0 - float(share)))
    q = _round(value * (1.0 - float(F32(share * rest))))
    t = _round(value * (1.0 - float(share) * (1.0 - float(rest))))
    sextant %= 6
    if sextant == 0:
        red, green, blue = value, t, p
    elif sextant == 1:
        red, green, blue = q, value, p
    elif sextant == 2:
        red, green, blue = p, value, t
    elif sextant == 3:
        red, green, blue = p, q, value
    elif sextant == 4:
        red, green, blue = t, p, value
    else:
        red, green, blue = value, p, q
    target[0, y, x], target[1, y, x], target[2, y, x] = red, green, blue


@kernel
def _round(value: float) -> int:
    return min(255, max(0, int(np.floor(value + 0.5))))


@kernel
def cutout(side: float, row: int, column: int, fill: Array, source: Array, target: Array) -> None:
    """Blank the square of this side about (row, column), as far as it lies inside."""
    channels, height, width = source.shape
    length = int(side)
    top, left = row - length // 2, column - length // 2
    copy(source, target)
    for channel in range(channels):
        for y in range(max(0, top), min(height, top + length)):
            for x in range(max(0, left), min(width, left + length)):
                target[channel, y, x] = fill[channel]


@kernel
def copy(source: Array, target: Array) -> None:
    """Every pixel as it is."""
    for channel in range(source.shape[0]):
        for y in range(source.shape[1]):
            for x in range(source.shape[2]):
                target[channel, y, x] = source[channel, y, x]


@kernel
def flip(source: Array, target: Array) -> None:
    """Mirror left and right."""
    channels, height, width = source.shape
    for channel in range(channels):
        for y in range(height):
            for x in range(UNSIGNED(width)):
                target[channel, y, x] = source[channel, y, UNSIGNED(width - 1) - x]
