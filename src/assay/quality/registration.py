"""Lay one picture over another: shift and scale of each axis by least squares, whatever brightness and contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

START_SCALES = (0.8, 1.0, 1.25)
START_SHIFT = 2  # pixels of 8
STEPS = 6  # of Gauss and Newton, at each resolution
LEAST_OVERLAP = 0.3  # of the picture
NOISE = 1.0  # grey levels: what differs by rounding and compression alone
BANDS = (0.8, 1.6, 3.2)  # standard deviations in pixels of 32: details between each two are compared for themselves
LARGEST = 0.999  # a higher correlation is not told from this one


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where a pixel of the first picture lies in the second: middle + scale · (place − middle) + shift, by axis.

    ``scale`` and ``shift`` are (P, 2), down and across; shifts are in pixels of a picture of 32.
    """

    scale: Tensor
    shift: Tensor

    def enlarged(self) -> Alignment:
        """The same in pictures of twice the size."""
        return Alignment(self.scale, self.shift * 2)

    def take(self, chosen: Tensor) -> Alignment:
        return Alignment(self.scale[chosen], self.shift[chosen])


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well pairs agree where they overlap, each (P,).

    ``score`` is a correlation: tanh of the mean Fisher z of the luminance, of its middling and of its coarse details,
    times the root of ``overlap``, a share of the picture. ``evidence`` is the number of independent places in which
    both have details. ``contrast``, ``offset`` and ``noise`` (grey levels) are of the second as a function of the
    first.
    """

    score: Tensor
    overlap: Tensor
    evidence: Tensor
    contrast: Tensor
    offset: Tensor
    noise: Tensor


def register(first: Tensor, second: Tensor) -> tuple[Alignment, Tensor]:
    """Align pairs of grey levels (P, 32, 32); with the correlation times the root of the overlap at half size (P,).

    The search starts where the two are, or where the best of all shifts by up to a quarter at three scales is: at the
    better of both.
    """
    half, half_second = _halve(first), _halve(second)
    same = Alignment(torch.ones(len(first), 2), torch.zeros(len(first), 2))
    moved = _search(_halve(half), _halve(half_second)).enlarged()
    heights = [_refine(half, half_second, start, steps=0)[1] for start in (same, moved)]
    better = (heights[1] > heights[0])[:, None]
    start = Alignment(torch.where(better, moved.scale, same.scale), torch.where(better, moved.shift, same.shift))
    best, height = _refine(half, half_second, start)
    return best.enlarged(), height


def refine(first: Tensor, second: Tensor, start: Alignment) -> Alignment:
    """The alignment at full size, from that at half size."""
    return _refine(first, second, start)[0]


def compare(first: Tensor, second: Tensor, alignment: Alignment) -> Agreement:
    """How well pairs (P, 32, 32) agree once aligned."""
    n = first.shape[1]
    down, across = (_Axis.of(alignment, axis, n) for axis in (0, 1))
    mask = down.inside[:, :, None] * across.inside[:, None, :]
    warped = down.weights @ second @ across.weights.transpose(1, 2)
    overlap = mask.mean(dim=(1, 2))
    fit = _Fit.of(first, warped, mask)
    heights, evidence = [fit.correlation], []
    a, b = first, warped
    for spread in BANDS:
        blur = _gaussian(n, spread)
        weight = (blur @ mask @ blur.T).clamp(min=1e-6)
        coarse_a, coarse_b = (blur @ (each * mask) @ blur.T / weight for each in (a, b))
        band = _Fit.of(a - coarse_a, b - coarse_b, mask)
        heights.append(band.correlation)
        evidence.append(band.places)
        a, b = coarse_a, coarse_b
    used = torch.stack([heights[0], heights[2], heights[3]])
    z = torch.atanh(used.clamp(-LARGEST, LARGEST)).mean(dim=0) * overlap.sqrt()
    return Agreement(z.tanh(), overlap, evidence[1] / BANDS[1] ** 2, fit.contrast, fit.offset, fit.noise)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The least-squares line through the second as a function of the first, under a mask, each (P,)."""

    correlation: Tensor
    contrast: Tensor
    offset: Tensor
    noise: Tensor
    places: Tensor

    @classmethod
    def of(cls, first: Tensor, second: Tensor, mask: Tensor) -> _Fit:
        total = mask.sum(dim=(1, 2)).clamp(min=1)
        mean, mean_second = ((each * mask).sum(dim=(1, 2)) / total for each in (first, second))
        a, b = (first - mean[:, None, None]) * mask, (second - mean_second[:, None, None]) * mask
        own, other, both = ((x * y).sum(dim=(1, 2)) / total for x, y in ((a, a), (b, b), (a, b)))
        correlation = both / ((own + NOISE**2) * (other + NOISE**2)).sqrt()
        contrast = both / (own + 1e-6)
        noise = (other - contrast * both).clamp(min=0).sqrt()
        places = total * own * other / ((a.square() * b.square()).sum(dim=(1, 2)) / total + 1e-6)
        return cls(correlation, contrast, mean_second - contrast * mean, noise, places)


@dataclass(frozen=True, eq=False)
class _Axis:
    """Linear interpolation along an axis: ``weights`` (P, n, n), and which pixels lie ``inside`` the second (P, n)."""

    weights: Tensor
    inside: Tensor

    @classmethod
    def of(cls, alignment: Alignment, axis: int, n: int) -> _Axis:
        middle, places = (n - 1) / 2, torch.arange(n, dtype=torch.float32)
        scale, shift = alignment.scale[:, axis, None], alignment.shift[:, axis, None]
        at = middle + scale * (places - middle) + shift
        inside = ((at >= -0.5) & (at <= n - 0.5)).float()
        return cls((1 - (at.clamp(0, n - 1)[:, :, None] - places).abs()).clamp(min=0), inside)


def _refine(first: Tensor, second: Tensor, start: Alignment, *, steps: int = STEPS) -> tuple[Alignment, Tensor]:
    """Gauss-Newton steps on shift, scale, contrast and offset; with correlation · √overlap of the best step (P,)."""
    pairs, n = len(first), first.shape[1]
    slope = _differences(n)
    offsets = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
    scale, shift = start.scale, start.shift
    best, best_scale, best_shift = torch.full((pairs,), -1.0), scale, shift
    for step in range(steps + 1):
        now = Alignment(scale, shift)
        down, across = (_Axis.of(now, axis, n) for axis in (0, 1))
        mask = down.inside[:, :, None] * across.inside[:, None, :]
        rows, columns = down.weights @ second, across.weights.transpose(1, 2)
        warped = rows @ columns
        fit = _Fit.of(warped, first, mask)
        overlap = mask.mean(dim=(1, 2))
        height = torch.where(overlap >= LEAST_OVERLAP, fit.correlation * overlap.sqrt(), -1.0)
        better = height > best
        best = torch.where(better, height, best)
        best_scale = torch.where(better[:, None], scale, best_scale)
        best_shift = torch.where(better[:, None], shift, best_shift)
        if step == steps:
            break
        by_down = (down.weights @ slope) @ second @ columns
        by_across = rows @ (across.weights @ slope).transpose(1, 2)
        residual = (first - fit.contrast[:, None, None] * warped - fit.offset[:, None, None]) * mask
        terms = (by_down * offsets[:, None], by_across * offsets, by_down, by_across)
        scaled = [fit.contrast[:, None, None] * term * mask for term in terms]
        jacobian = torch.stack([*scaled, warped * mask, mask], dim=1).flatten(2)
        normal = jacobian @ jacobian.transpose(1, 2)
        diagonal = normal.diagonal(dim1=1, dim2=2)
        normal = normal + torch.diag_embed(diagonal * 1e-3 + 1e-3 * diagonal.amax(dim=1, keepdim=True) * 1e-4 + 1e-4)
        change = torch.linalg.solve(normal, (jacobian @ residual.flatten(1)[:, :, None]))[:, :, 0]
        change = change.nan_to_num(0, 0, 0)
        scale = (scale + change[:, :2].clamp(-0.1, 0.1)).clamp(0.5, 2)
        shift = shift + change[:, 2:4].clamp(-n / 16, n / 16)
    return Alignment(best_scale, best_shift), best


def _search(first: Tensor, second: Tensor) -> Alignment:
    """The best of all whole shifts at three scales, by correlation · √overlap, of pairs (P, 8, 8)."""
    pairs, n = len(first), first.shape[1]
    steps = range(-START_SHIFT, START_SHIFT + 1)
    shifts = [(down, across) for down in steps for across in steps]
    places, heights = [], []
    flat = first.flatten(1)
    for start in START_SCALES:
        centred = Alignment(torch.full((1, 2), start), torch.zeros(1, 2))
        axis = _Axis.of(centred, 0, n)
        size = (axis.inside[0][:, None] * axis.inside[0])[None]
        warped = axis.weights[0] @ second @ axis.weights[0].T * size
        windows, masks = (_shifted(each, shifts) for each in (warped, size))
        total = masks.sum(dim=2)
        sums = flat @ masks[0].T, windows.sum(dim=2)
        squares = flat.square() @ masks[0].T, windows.square().sum(dim=2)
        product = (windows @ flat[:, :, None])[:, :, 0]
        both = product - sums[0] * sums[1] / total
        own, other = (square - value.square() / total for square, value in zip(squares, sums, strict=True))
        correlation = both / ((own + total * NOISE**2) * (other + total * NOISE**2)).clamp(min=1e-6).sqrt()
        best = (correlation * (total / n**2).sqrt()).max(dim=1)
        heights.append(best.values)
        places.append(best.indices)
    chosen = torch.stack(heights).argmax(dim=0)
    place = torch.stack(places)[chosen, torch.arange(pairs)]
    scale = torch.tensor(START_SCALES)[chosen][:, None].expand(-1, 2)
    return Alignment(scale, torch.tensor(shifts, dtype=torch.float32)[place] * scale)


def _shifted(pictures: Tensor, shifts: list[tuple[int, int]]) -> Tensor:
    """(P, n, n) to (P, shifts, n·n): each picture moved, with zeros where there is nothing."""
    n = pictures.shape[1]
    padded = torch.nn.functional.pad(pictures, (START_SHIFT,) * 4)
    return torch.stack(
        [padded[:, START_SHIFT + y : START_SHIFT + y + n, START_SHIFT + x : START_SHIFT + x + n] for y, x in shifts], 1
    ).flatten(2)


def _halve(pictures: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(pictures[:, None], 2)[:, 0]


def _differences(n: int) -> Tensor:
    """(n, n): the central difference of neighbours, one-sided at the ends."""
    matrix = torch.zeros(n, n)
    for row in range(n):
        low, high = max(0, row - 1), min(n - 1, row + 1)
        matrix[row, high], matrix[row, low] = 1 / (high - low), -1 / (high - low)
    return matrix


def _gaussian(n: int, spread: float) -> Tensor:
    places = torch.arange(n, dtype=torch.float32)
    return torch.exp(-((places[:, None] - places) / spread).square() / 2) * (1 / (spread * math.sqrt(2 * math.pi)))
