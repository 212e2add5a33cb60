"""What the attacker may do: a ball around each image, inside the bounds of valid pixel values.

Deltas and images are (B, C, H, W); an epsilon is one number a sample, (B,), in pixel units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from assay.arguments import checked_fields
from assay.attacks import draws
from assay.errors import OptionError
from assay.records.attack import Norm

_BISECTIONS = 40  # to the last bit of float32
_ROUNDING = 2.0**-24  # float32 spacing just below 1: what storing x + δ in float32 may add to one pixel


def column(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to meet images."""
    return values.reshape(-1, 1, 1, 1)


def _length(values: Tensor) -> Tensor:
    return values.flatten(1).square().sum(dim=1).sqrt()


class Geometry(ABC):
    """A norm, with the operations that an attack needs."""

    @abstractmethod
    def distance(self, delta: Tensor) -> Tensor:
        """‖δ‖ of each sample, (B,), in the dtype of ``delta``."""

    @abstractmethod
    def project(self, delta: Tensor, epsilon: Tensor) -> Tensor:
        """The nearest point (in L2) of the ball of radius ε."""

    def confine(self, delta: Tensor, epsilon: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Into the ball and ``low`` ≤ 0 ≤ ``high``: the nearest such point (in L2); for L2 as published attacks do."""
        return self.project(delta, epsilon).clamp(low, high)

    @abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of norm 1 of steepest ascent: argmax ⟨g, d⟩ over ‖d‖ = 1; zero where the gradient is zero."""

    @abstractmethod
    def sample(self, ids: Tensor, *key: int, like: Tensor) -> Tensor:
        """A point of the unit ball for each id, uniform in volume, shaped as ``like``."""

    @abstractmethod
    def dual(self, gradient: Tensor) -> Tensor:
        """The dual norm of each gradient, (B,): |margin| over it is the distance to a linear boundary."""

    @abstractmethod
    def slack(self, pixels: int) -> float:
        """How far rounding every pixel to float32 may push a point out of the ball."""


class _Linf(Geometry):
    def distance(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(dim=1)

    def project(self, delta: Tensor, epsilon: Tensor) -> Tensor:
        bound = column(epsilon)
        return torch.clamp(delta, -bound, bound)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def sample(self, ids: Tensor, *key: int, like: Tensor) -> Tensor:
        return (draws.uniform(ids, *key, size=like[0].numel()) * 2 - 1).to(like.dtype).reshape(like.shape)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().sum(dim=1)

    def slack(self, pixels: int) -> float:
        return _ROUNDING


class _L2(Geometry):
    def distance(self, delta: Tensor) -> Tensor:
        return _length(delta)

    def project(self, delta: Tensor, epsilon: Tensor) -> Tensor:
        length = self.distance(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * column((epsilon / length).clamp_max(1.0))

    def steepest(self, gradient: Tensor) -> Tensor:
        # Scaled by the largest entry first: squares of gradients near 1e-25 would underflow to a zero length.
        largest = gradient.flatten(1).abs().amax(dim=1)
        scaled = gradient / column(torch.where(largest > 0, largest, 1.0))
        length = _length(scaled)
        return scaled / column(torch.where(length > 0, length, 1.0))

    def sample(self, ids: Tensor, *key: int, like: Tensor) -> Tensor:
        pixels = like[0].numel()
        direction = draws.normal(ids, *key, size=pixels)
        radius = draws.uniform(ids, *key, 1, size=1) ** (1.0 / pixels)
        return (radius * direction / _length(direction)[:, None]).to(like.dtype).reshape(like.shape)

    def dual(self, gradient: Tensor) -> Tensor:
        return _length(gradient)

    def slack(self, pixels: int) -> float:
        return float(_ROUNDING * pixels**0.5)


class _L1(Geometry):
    """The steepest direction is one pixel; moving the top 1 % is the usual compromise (SLIDE, Tramèr & Boneh 2019)."""

    share = 0.01

    def distance(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(dim=1)

    def project(self, delta: Tensor, epsilon: Tensor) -> Tensor:
        """Soft thresholding by the λ at which Σ(|δ|−λ)₊ = ε (Duchi et al. 2008), found from the sorted magnitudes."""
        magnitude = delta.flatten(1).abs()
        ordered = magnitude.sort(dim=1, descending=True).values
        places = torch.arange(1, ordered.shape[1] + 1, device=delta.device, dtype=delta.dtype)
        thresholds = (ordered.cumsum(dim=1) - epsilon[:, None].to(delta.dtype)) / places
        support = (ordered > thresholds).sum(dim=1, keepdim=True).clamp_min(1)
        threshold = thresholds.gather(1, support - 1).clamp_min(0.0)
        return (delta.flatten(1).sign() * (magnitude - threshold).clamp_min(0.0)).reshape(delta.shape)

    def confine(self, delta: Tensor, epsilon: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """|d| = min((|δ| − λ)₊, room), the smallest λ ≥ 0 that fits ε, by bisection (Croce & Hein 2021)."""
        magnitude = delta.flatten(1).abs()
        room = torch.where(delta > 0, high, -low).flatten(1)
        fits, tight = torch.zeros_like(epsilon), magnitude.amax(dim=1)  # λ = 0 may be too little, the largest never is
        unchanged = torch.minimum(magnitude, room).sum(dim=1) <= epsilon
        for _ in range(_BISECTIONS):
            middle = 0.5 * (fits + tight)
            small = torch.minimum((magnitude - middle[:, None]).clamp_min(0.0), room).sum(dim=1) <= epsilon
            tight = torch.where(small, middle, tight)
            fits = torch.where(small, fits, middle)
        chosen = torch.where(unchanged, 0.0, tight)[:, None]
        length = torch.minimum((magnitude - chosen).clamp_min(0.0), room)
        return (delta.flatten(1).sign() * length).reshape(delta.shape)

    def steepest(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        count = max(1, round(self.share * flat.shape[1]))
        largest = flat.abs().topk(count, dim=1).indices
        chosen = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign())
        return (chosen / chosen.abs().sum(dim=1, keepdim=True).clamp_min(1.0)).reshape(gradient.shape)

    def sample(self, ids: Tensor, *key: int, like: Tensor) -> Tensor:
        pixels = like[0].numel()
        lengths = -torch.log1p(-draws.uniform(ids, *key, size=pixels))
        signs = draws.signs(ids, *key, 2, size=pixels).double()
        radius = draws.uniform(ids, *key, 1, size=1) ** (1.0 / pixels)
        return (radius * signs * lengths / lengths.sum(dim=1, keepdim=True)).to(like.dtype).reshape(like.shape)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().amax(dim=1)

    def slack(self, pixels: int) -> float:
        return _ROUNDING * pixels


GEOMETRIES: Mapping[Norm, Geometry] = MappingProxyType({"linf": _Linf(), "l2": _L2(), "l1": _L1()})


@checked_fields
@dataclass(frozen=True)
class Threat:
    """Threat model: all images within ε of the original in a norm, inside the bounds of valid pixel values.

    Args:
        norm: linf, l2 or l1.
        epsilon: radius of the ball in pixel units, at least 0.
        bounds: the least and the largest valid pixel value.
        constrained: False drops the ball and keeps the bounds; ``epsilon`` is then the size of a step.

    Raises:
        OptionError: an epsilon that is negative or not finite, an unknown norm, or empty bounds.

    Example:
        >>> import torch, assay
        >>> threat = assay.Threat(norm="linf", epsilon=0.1)
        >>> images = torch.rand(4, 3, 8, 8)
        >>> projected = threat.project(images + 1.0, images, torch.full((4,), 0.1))
        >>> bool((threat.distance(projected, images) <= 0.1 + 1e-6).all())
        True
    """

    norm: Norm = "linf"
    epsilon: float = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    constrained: bool = True

    def __post_init__(self) -> None:
        if self.norm not in GEOMETRIES:
            raise OptionError("norm", expected=f"one of {', '.join(GEOMETRIES)}", got=repr(self.norm))
        if not 0 <= self.epsilon < float("inf"):
            raise OptionError("epsilon", expected="a finite number of at least 0, in pixel units", got=self.epsilon)
        if not self.bounds[0] < self.bounds[1]:
            raise OptionError("bounds", expected="low < high", got=self.bounds)

    @property
    def geometry(self) -> Geometry:
        return GEOMETRIES[self.norm]

    def clip(self, images: Tensor) -> Tensor:
        return images.clamp(*self.bounds)

    def project(self, iterates: Tensor, images: Tensor, epsilon: Tensor) -> Tensor:
        """Into ball and bounds; ``images`` lie in the bounds."""
        low, high = self.bounds[0] - images, self.bounds[1] - images
        return self.clip(images + self.geometry.confine(iterates - images, epsilon, low, high))

    def distance(self, iterates: Tensor, images: Tensor) -> Tensor:
        """‖x′ − x‖ of each sample in float64, (B,)."""
        return self.geometry.distance(iterates.double() - images.double())

    def contains(self, iterates: Tensor, images: Tensor, epsilon: Tensor) -> Tensor:
        """bool (B,): inside the bounds and, in float64, inside the ball up to the rounding of float32 pixels."""
        flat = iterates.flatten(1)
        inside = ((flat >= self.bounds[0]) & (flat <= self.bounds[1])).all(dim=1)
        if not self.constrained:
            return inside
        return inside & (self.distance(iterates, images) <= self.limit(epsilon, images.shape[1:].numel()))

    def limit(self, epsilon: Tensor, pixels: int) -> Tensor:
        """The largest distance that counts, float64 (B,): ε, and for the rounding of float32 pixels at most ε more.

        So a ball of radius 0 holds the image itself and no other.
        """
        return epsilon.double() + epsilon.double().clamp_max(self.geometry.slack(pixels))

    def diameter(self, pixels: int) -> float:
        """The distance of the two images that lie furthest apart in the bounds."""
        furthest = torch.full((1, pixels), self.bounds[1] - self.bounds[0], dtype=torch.float64)
        return float(self.geometry.distance(furthest))
