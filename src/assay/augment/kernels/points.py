"""Point operations with a closed form: arithmetic on bytes, which runs in the processor's wide registers.

``old`` and ``new`` are flat arrays of bytes: the pixels of a picture, or a table of 256 values a channel. They may be
the same array. An index without a sign spares numba its check for negative ones, and the loops vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.augment.kernels.compiling import kernel
from assay.augment.operations import CODES

Array = Any  # numpy arrays; numba infers the exact types
F32 = np.float32
I32 = np.int32
I64 = np.int64
U8 = np.uint8
U32 = np.uint32
UNSIGNED = np.uint64
BRIGHTNESS, CONTRAST, POSTERIZE = CODES["Brightness"], CODES["Contrast"], CODES["Posterize"]
INVERT = CODES["Invert"]
_ADDENDS = 1 << 16  # as many lumas add up in 32 bits with room to spare


@kernel
def to_byte(value: Any) -> Any:
    """Cut off the fraction, then clip: the same as the reverse, and cheaper."""
    whole = I32(value)
    whole = whole if whole > I32(0) else I32(0)  # `max` would widen to 64 bits
    return U8(whole if whole < I32(255) else I32(255))


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
    """The rounded mean of the luma over a picture (C, H, W); the first channel unless there are three."""
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
