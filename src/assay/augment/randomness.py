"""Random numbers as a pure function of (seed, epoch, sample id, slot): the same in any batch, order or worker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def draw_bits(ids: Tensor, *, seed: int, epoch: int, slots: Sequence[int]) -> npt.NDArray[np.uint64]:
    """64 random bits for each of ``ids`` (int64 (B,)), in each of the independent streams ``slots``; shape (S, B).

    A counter-based generator: the key (seed, epoch, slot) and the counter (the id) are mixed by two rounds of the
    splitmix64 finaliser, a bijection of the 64-bit words. Reference: Steele, Lea & Flood, *Fast splittable pseudorandom
    number generators*, OOPSLA 2014; Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.
    """
    keys = np.array([[_key(seed, epoch, slot)] for slot in slots], np.uint64)
    counters = ids.detach().cpu().numpy().astype(np.int64).view(np.uint64) * np.uint64(_GOLDEN)
    return _mix(_mix(counters + keys) + keys)


def draw_uniforms(ids: Tensor, *, seed: int, epoch: int, slots: Sequence[int]) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each slot and id, a multiple of 2⁻⁵³; float64 (S, B)."""
    return (draw_bits(ids, seed=seed, epoch=epoch, slots=slots) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw_integers(ids: Tensor, bound: int, *, seed: int, epoch: int, slot: int) -> npt.NDArray[np.int64]:
    """One integer in 0..bound−1 for each id; int64 (B,). Its bias is below bound·2⁻⁵³."""
    uniform = draw_uniforms(ids, seed=seed, epoch=epoch, slots=(slot,)).reshape(-1)
    return (uniform * bound).astype(np.int64)


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_FIRST)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_SECOND)
    return words ^ (words >> np.uint64(31))


def _key(*parts: int) -> int:
    key = _GOLDEN
    for part in parts:
        key = _mix_integer((key ^ (part & _MASK)) + _GOLDEN & _MASK)
    return key


def _mix_integer(word: int) -> int:
    word = (word ^ (word >> 30)) * _FIRST & _MASK
    word = (word ^ (word >> 27)) * _SECOND & _MASK
    return word ^ (word >> 31)
