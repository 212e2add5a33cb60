"""Random numbers that belong to a sample, not to a batch.

Each number is a hash of (seed, stream, sample id, position), so a sample meets the same random start and the same
squares alone, in any batch, on any number of workers, and after a resume.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea & Flood 2014); int64 arithmetic wraps as it needs to."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def bits(ids: Tensor, *key: int | Tensor, size: int) -> Tensor:
    """int64 (B, size) of 64 random bits, a function of each id (B,), of every part of ``key``, and of the position.

    A part of the key may be an int64 tensor (B,) with a number for each sample, a step counter for instance.
    """
    state = _mix(ids * _GOLDEN)
    for part in key:
        state = _mix((state ^ part) + _GOLDEN)
    positions = torch.arange(size, device=ids.device) * _GOLDEN
    return _mix(state[:, None] + positions)


def uniform(ids: Tensor, *key: int | Tensor, size: int) -> Tensor:
    """float64 (B, size), uniform in [0, 1) on a grid of 2⁻⁵³."""
    return _shift(bits(ids, *key, size=size), 11).double() * 2.0**-53


def normal(ids: Tensor, *key: int | Tensor, size: int) -> Tensor:
    """float64 (B, size), standard normal by Box and Muller's transform of two uniforms."""
    half = (size + 1) // 2
    both = uniform(ids, *key, size=2 * half)
    radius = torch.sqrt(-2.0 * torch.log1p(-both[:, :half]))
    angle = 2.0 * math.pi * both[:, half:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :size]


def signs(ids: Tensor, *key: int | Tensor, size: int) -> Tensor:
    """float32 (B, size) of −1 and +1, each with probability one half."""
    return (_shift(bits(ids, *key, size=size), 63) * 2 - 1).float()
