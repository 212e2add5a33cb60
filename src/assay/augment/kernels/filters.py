"""Operations that mix channels or neighbours, on one image (C, H, W).

Single precision is exact here: luma times 2¹⁶ stays below 2²⁴, where float32 holds every integer. It lets the loops run
sixteen pixels at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.augment.kernels.geometry import copy
from assay.augment.kernels.points import F32, I32, I64, ONE, TWO, U32, UNSIGNED, Array, kernel, to_byte

U16 = np.uint16


@kernel
def color(factor: float, source: Array, target: Array) -> None:
    """Blend with luma; an image of one channel is its own luma."""
    if source.shape[0] == 1:
        copy(source, target)
        return
    area, weight = source.shape[1] * source.shape[2], F32(factor)
    old, new = source.reshape(source.size), target.reshape(target.size)
    second, third = UNSIGNED(area), UNSIGNED(2 * area)
    for i in range(UNSIGNED(area)):
        red, green, blue = F32(old[i]), F32(old[i + second]), F32(old[i + third])
        scaled = red * F32(19595) + green * F32(38470) + blue * F32(7471) + F32(0x8000)
        luma = F32(I32(scaled * F32(2.0**-16)))
        new[i] = to_byte(luma + weight * (red - luma))
        new[i + second] = to_byte(luma + weight * (green - luma))
        new[i + third] = to_byte(luma + weight * (blue - luma))


@kernel
def sharpness(factor: float, source: Array, target: Array) -> None:
    """Blend with the mean over 3×3 in which the middle counts five times; the border is copied.

    Rows run on into one another, which makes long loops of short rows; what that does to the border is overwritten.
    """
    channels, height, width = source.shape
    if height < 3 or width < 3:
        copy(source, target)
        return
    weight, area = F32(factor), height * width
    below, beneath, middle = UNSIGNED(width), UNSIGNED(2 * width), UNSIGNED(width + 1)
    sums = np.empty(area - 2 * width, np.uint16)
    for channel in range(channels):
        old, new = source[channel].reshape(area), target[channel].reshape(area)
        for i in range(UNSIGNED(sums.size)):
            sums[i] = U16(old[i]) + U16(old[i + below]) + U16(old[i + beneath])
        for i in range(UNSIGNED(sums.size - 2)):
            value = old[i + middle]
            total = U16(sums[i] + sums[i + ONE] + sums[i + TWO] + U16(4) * U16(value))
            smooth = F32(U16((U32(U16(total + U16(6))) * U32(5042)) >> U32(16)))  # (total + 6) // 13, up to 13·255
            new[i + middle] = to_byte(smooth + weight * (F32(value) - smooth))
        for x in range(width):
            new[x], new[area - 1 - x] = old[x], old[area - 1 - x]
        for first in range(0, area, width):
            last = first + width - 1
            new[first], new[last] = old[first], old[last]


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
                turns = float(sextant) / 6.0 + 1.0
                angle = int(float(F32(turns - 1.0 if turns >= 1.0 else turns)) * 255.0)
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
