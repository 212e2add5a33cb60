"""A recurrent matrix with a wanted spectral radius and a wanted norm: the two numbers that theory keeps apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assay.errors import OptionError
from assay.runtime import generator

_STREAM = 0x3A7


def make_recurrent_matrix(size: int, *, radius: float, norm: float, seed: int = 0) -> Tensor:
    """W (H, H), float64, with spectral radius ρ = ``radius`` and ‖W‖₂ = ``norm``: W = Q·diag(J, J, …)·Qᵀ.

    J = [[ρ, c], [0, ρ]] with c = ‖W‖ − ρ²/‖W‖, whose singular values are ‖W‖ and ρ²/‖W‖; an odd size ends with a
    single ρ. Q is orthogonal and follows from ``seed``, so that W looks like any other matrix. c = 0 is a normal one;
    the larger c, the further ‖W^k‖ climbs before it goes where ρ^k goes. (Longer Jordan blocks would climb further,
    but rounding moves their eigenvalues so far that ρ could not be measured.)

    Raises :class:`OptionError` for a size below 1, a negative radius, a norm below the radius (no matrix has one), or
    one above it for a single unit.
    """
    if size < 1:
        raise OptionError("hidden", expected="at least 1", got=size)
    if not 0 <= radius < math.inf:
        raise OptionError("radius", expected="a finite number of at least 0", got=radius)
    if not radius <= norm < math.inf:
        raise OptionError("norm", expected=f"at least the spectral radius, {radius:g}: ρ(W) ≤ ‖W‖", got=norm)
    if size == 1 and norm > radius:
        raise OptionError("norm", expected=f"{radius:g}, the radius, for a single unit", got=norm)
    W = radius * torch.eye(size, dtype=torch.float64)
    pairs = torch.arange(0, size - 1, 2)
    W[pairs, pairs + 1] = norm - radius**2 / norm if norm > 0 else 0.0
    Q, _ = torch.linalg.qr(torch.randn(size, size, generator=generator(seed, _STREAM), dtype=torch.float64))
    shaped: Tensor = Q @ W @ Q.T
    return shaped
