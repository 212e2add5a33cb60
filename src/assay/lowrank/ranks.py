"""Rules that choose the rank: a number, an error, a share of the energy, or a threshold for noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
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

    @property
    def allowed(self) -> float:
        """The share of ‖X‖² that may be left out, where the rule says so; else NaN."""
        if self.energy is not None:
            return 1 - self.energy
        return math.nan if self.tolerance is None else self.tolerance**2

    def within_reach(self, columns: int, captured: float, energy: float, resolution: float) -> bool:
        """Whether ``columns`` Ritz values with the sum ``captured`` can be enough: a cheap look before all of them."""
        if self.rank is not None:
            return columns > self.rank
        return self.gavish_donoho or energy - captured <= self._most_left_out(energy, resolution)

    def pick(
        self, squares: Tensor, energy: float, shape: tuple[int, int], *, complete: bool, resolution: float
    ) -> int | None:
        """The rank, given the leading σ² (falling) and ‖X‖²; None when more of the spectrum must be known.

        ``complete``: what is not among ``squares`` is zero. Squares, and sums of them, below ``resolution`` times the
        largest, and ‖X‖², are rounding. At least 1: a factorisation of rank 0 has no factors.
        """
        if self.rank is not None:
            return self.rank
        squares = squares[: min(shape)]
        if self.gavish_donoho:
            if self.noise is None and not complete:
                return None
            sigma = squares.clamp_min(0).sqrt()
            sigma = torch.cat([sigma, sigma.new_zeros(min(shape) - len(sigma))]) if complete else sigma
            above = int((sigma > self._threshold(sigma, shape)).sum())
            return None if above == len(squares) and not complete else max(1, above)
        left = energy - squares.cumsum(0)
        if complete:  # from the small end, so that the sum of what is left out keeps its digits
            present = torch.where(squares > resolution * squares[0], squares, 0.0)
            left = present.flip(0).cumsum(0).flip(0) - present
        enough = (left <= self._most_left_out(energy, resolution)).nonzero()
        return int(enough[0]) + 1 if len(enough) else None

    def _most_left_out(self, energy: float, resolution: float) -> float:
        return (self.allowed * (1 + 1e-12) + resolution) * energy

    def shortfall(self, rank: int, left: float, *, energy: float, rounding: float, resolved: float = 1e-14) -> str:
        """What a factorisation of ``rank`` that leaves out ``left`` of ‖X‖² lacks of what was asked for, or nothing.

        ``rounding`` of the factors is a share of the tolerance that may be exceeded, ``resolved`` the least relative
        error that can be told from none.
        """
        if self.rank is not None:
            return "" if rank == self.rank else f"rank {rank}, not {self.rank}, was reached"
        error = math.sqrt(max(0.0, left) / energy) if energy else 0.0
        least = resolved + (rounding if self.energy is not None else 0.0)  # 1 − energy is itself no better known
        if self.gavish_donoho or error <= math.sqrt(self.allowed) * (1 + 1e-9 + rounding) + least:
            return ""
        if self.tolerance is not None:
            return f"the relative error is {error:.3g}, more than {self.tolerance:g}"
        return f"{100 * (1 - error**2):.6g} % of the energy is kept, less than {100 * (self.energy or 0):g} %"

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
