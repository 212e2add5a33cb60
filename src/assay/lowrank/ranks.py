"""Rules that choose the rank: a number, an error, a share of the energy, or a threshold for noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from assay.errors import OptionError


@dataclass(frozen=True)
class RankRule:
    """Exactly one of: ``rank``, ``tolerance`` (‖X − X_r‖_F ≤ t·‖X‖_F), ``energy`` (Σσ² ≥ e·‖X‖²), or noise.

    ``gavish_donoho`` keeps the singular values above the optimal hard threshold; ``noise`` is the standard deviation
    of the noise in each entry where it is known, else it is estimated from the median singular value.
    """

    rank: int | None = None
    tolerance: float | None = None
    energy: float | None = None
    gavish_donoho: bool = False
    noise: float | None = None

    def __str__(self) -> str:
        if self.rank is not None:
            return f"rank {self.rank}"
        if self.tolerance is not None:
            return f"relative error at most {self.tolerance:g}"
        if self.energy is not None:
            return f"at least {100 * self.energy:g} % of the energy"
        return "Gavish–Donoho threshold" + ("" if self.noise is None else f" for noise {self.noise:g}")

    @property
    def needs_whole_spectrum(self) -> bool:
        return self.gavish_donoho and self.noise is None

    def pick(self, squares: Tensor, energy: float, shape: tuple[int, int]) -> int | None:
        """The rank, given the leading σ² (falling) and ‖X‖²; None when more of the spectrum must be known.

        At least 1: a factorisation of rank 0 has no factors.
        """
        if self.rank is not None:
            return self.rank
        complete = len(squares) >= min(shape)
        if self.gavish_donoho:
            if self.noise is None and not complete:
                return None
            sigma = squares.clamp_min(0).sqrt()
            threshold = self._threshold(sigma, shape)
            above = int((sigma > threshold).sum())
            return None if above == len(squares) and not complete else max(1, above)
        share = self.energy if self.energy is not None else 1 - (self.tolerance or 0.0) ** 2
        enough = (squares.cumsum(0) >= (share - 1e-14) * energy).nonzero()
        if len(enough):
            return int(enough[0]) + 1
        return max(1, len(squares)) if complete else None

    def _threshold(self, sigma: Tensor, shape: tuple[int, int]) -> float:
        beta = min(shape) / max(shape)
        if self.noise is not None:
            return optimal_threshold(beta) * math.sqrt(max(shape)) * self.noise
        return optimal_threshold(beta) / math.sqrt(marchenko_pastur_median(beta)) * float(np.median(sigma.numpy()))


def rank_rule(
    rank: int | str | None, tolerance: float | None, energy: float | None, noise: float | None, shape: tuple[int, int]
) -> RankRule:
    """Check that exactly one criterion is given and that it can be met; raises :class:`OptionError` otherwise."""
    criteria = {"rank": rank, "tolerance": tolerance, "energy": energy}
    given = [name for name, value in criteria.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        raise OptionError("rank", expected="one of rank, tolerance and energy", got=got)
    if noise is not None and rank != "gavish-donoho":
        raise OptionError("noise", expected="rank 'gavish-donoho' beside it", got=given[0])
    if tolerance is not None and not 0 <= tolerance < 1:
        raise OptionError("tolerance", expected="a relative error in [0, 1)", got=tolerance)
    if energy is not None and not 0 < energy <= 1:
        raise OptionError("energy", expected="a share in (0, 1]", got=energy)
    if noise is not None and not (noise > 0 and math.isfinite(noise)):
        raise OptionError("noise", expected="a positive standard deviation", got=noise)
    if isinstance(rank, str):
        if rank != "gavish-donoho":
            raise OptionError("rank", expected="a number or 'gavish-donoho'", got=repr(rank))
        return RankRule(gavish_donoho=True, noise=noise)
    if rank is not None:
        limit = min(shape) if shape[0] > 0 else shape[1]
        if isinstance(rank, bool) or int(rank) != rank or not 1 <= rank <= limit:
            raise OptionError("rank", expected=f"a whole number in 1..{limit}", got=rank)
        return RankRule(rank=int(rank))
    return RankRule(tolerance=tolerance, energy=energy)


def optimal_threshold(beta: float) -> float:
    """λ*(β) = √(2(β+1) + 8β/((β+1) + √(β²+14β+1))), in units of √n·noise for an m×n matrix, β = m/n ≤ 1.

    Gavish & Donoho, *The optimal hard threshold for singular values is 4/√3*, IEEE Trans. Inf. Theory
    60 (2014), eq. 11.
    """
    return math.sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + math.sqrt(beta * beta + 14 * beta + 1)))


@lru_cache(maxsize=64)
def marchenko_pastur_median(beta: float) -> float:
    """The median of the Marchenko–Pastur law on [(1−√β)², (1+√β)²], by quadrature in t = centre − 2√β cos φ."""
    phi = (np.arange(200_000) + 0.5) * (math.pi / 200_000)
    places = 1 + beta - 2 * math.sqrt(beta) * np.cos(phi)
    # density √((b−t)(t−a))/(2πβt) with √(…) = 2√β sin φ and dt = 2√β sin φ dφ
    mass = np.cumsum(np.sin(phi) ** 2 / places)
    return float(places[np.searchsorted(mass, mass[-1] / 2)])
