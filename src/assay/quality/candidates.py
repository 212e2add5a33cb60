"""Which pictures could be duplicates: exact nearest neighbours in histograms of gradients, which tolerate shifts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.quality.thumbnails import SIDE, middle

CELLS = 4  # along a side
DIRECTIONS = 8
DIMENSIONS = 96
FITTED_ON = 4_096  # pictures at most
NEIGHBOURS = 5  # of each picture, upright or mirrored
WINDOWED = 3  # the same, where one of both is cut to its middle
GROUP = 64  # neighbours of which only the nearest is compared at first
BLOCK = 512  # pictures described at once, and at most compared at once with all others
TABLE_BYTES = 1 << 27  # of similarities at once
WINDOW = 0.75  # of a side: pictures of which one is a window of the other are found through it


@dataclass(frozen=True)
class Describer:
    """Histograms of the directions of gradients in 4 × 4 overlapping cells, decorrelated: unit vectors of 96 numbers.

    The root of the principal components' variance is divided out by half (its fourth root remains): components that
    nearly all pictures share weigh less, and those of noise are not blown up.
    """

    mean: Tensor
    components: Tensor

    @classmethod
    def fit(cls, thumbnails: Tensor) -> Describer:
        """The components of at most 4,096 of ``thumbnails`` (N, 32, 32), evenly spread."""
        taken = thumbnails[:: max(1, math.ceil(len(thumbnails) / FITTED_ON))].float()
        histograms = gradient_histograms(taken)
        mean = histograms.mean(dim=0)
        covariance = (histograms - mean).T.double() @ (histograms - mean).double() / len(taken)
        variances, vectors = torch.linalg.eigh(covariance)
        variances, vectors = variances.flip(0)[:DIMENSIONS], vectors.flip(1)[:, :DIMENSIONS]
        scale = variances.clamp(min=1e-6 * float(variances[0]) + 1e-12) ** -0.25
        return cls(mean, (vectors * scale).float())

    def describe(self, thumbnails: Tensor) -> Tensor:
        """(N, 32, 32) to unit vectors (N, 96)."""
        parts = [
            (gradient_histograms(part.float()) - self.mean) @ self.components for part in torch.split(thumbnails, BLOCK)
        ]
        return F.normalize(torch.cat(parts), dim=1, eps=1e-6)


def gradient_histograms(thumbnails: Tensor) -> Tensor:
    """(N, 32, 32) to (N, 128): the root of the gradients' sizes, by direction and cell, with mean 0 and norm 1."""
    kernel = torch.tensor([0.25, 0.5, 0.25])
    padded = F.pad(thumbnails[:, None], (2, 2, 2, 2), mode="replicate")
    smooth = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 3, 1)), kernel.view(1, 1, 1, 3))[:, 0]
    across, down = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2], smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    size = (across.square() + down.square()).sqrt() + 1
    width = SIDE // CELLS
    ramp = 1 - (torch.arange(2 * width) + 0.5 - width).abs() / width  # a pixel belongs to the cells around it
    window = (ramp[:, None] * ramp)[None, None]
    cells = []
    for angle in torch.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS):
        along = (across * angle.cos() + down * angle.sin()).clamp(min=0)
        weights = F.pad((along.square() / size)[:, None], (width // 2,) * 4)
        cells.append(F.conv2d(weights, window, stride=width).flatten(1))
    histograms = torch.cat(cells, dim=1).sqrt()
    return F.normalize(histograms - histograms.mean(dim=1, keepdim=True), dim=1, eps=1e-6)


def find_candidates(
    first: Tensor, second: Tensor, describer: Describer, *, same: bool, rows: range
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The nearest of ``second`` to each of ``first`` (thumbnails (N, 32, 32)) in ``rows``, upright or mirrored.

    Each is compared whole with whole, its middle with whole ones, and whole with the middles of the others. Where both
    are the ``same`` set, a picture is no neighbour of itself.

    Yields places in ``first`` and in ``second``, int64 (M,), and whether those of ``first`` are mirrored, bool (M,).
    """
    n = len(second)
    full_views = describer.describe(second)
    middles = torch.cat([describer.describe(middle(part, share=WINDOW)) for part in torch.split(second, BLOCK)])
    ways = ((full_views, False, NEIGHBOURS), (full_views, True, WINDOWED), (middles, False, WINDOWED))
    step = max(1, min(BLOCK, TABLE_BYTES // (8 * n)))
    for start in range(rows.start, rows.stop, step):
        places = torch.arange(start, min(start + step, rows.stop))
        tables = []
        for target, of_middle, k in ways:
            pictures = torch.cat([first[places], first[places].flip(2)])
            query = describer.describe(middle(pictures, share=WINDOW) if of_middle else pictures)
            similarity = query @ target.T
            if same:
                similarity[torch.arange(2 * len(places)), places.repeat(2)] = -2
            nearest = _nearest(similarity, k)
            heights, columns = (torch.cat(each.chunk(2), dim=1) for each in (nearest.values, nearest.indices))
            columns[:, nearest.values.shape[1] :] += n
            tables.append(columns.gather(1, heights.topk(nearest.values.shape[1], dim=1).indices))
        chosen = torch.cat(tables, dim=1)
        numbers = torch.unique(places[:, None] * (2 * n) + chosen)
        left, right, mirrored = numbers // (2 * n), numbers % n, numbers % (2 * n) >= n
        others = left != right if same else torch.ones_like(mirrored)
        yield left[others], right[others], mirrored[others]


class _Nearest(NamedTuple):
    values: Tensor
    indices: Tensor


def _nearest(table: Tensor, k: int) -> _Nearest:
    """The largest of each row of a ``table`` (rows, n) and their places, (rows, k).

    The largest k lie in the k groups with the largest best member, so that looking into these alone is exact.
    """
    rows, n = table.shape
    k = min(k, n)
    full = n // GROUP * GROUP
    if n < 4 * GROUP * k:
        return _Nearest(*table.topk(k, dim=1))
    best = table[:, :full].view(rows, -1, GROUP).amax(dim=2).topk(k, dim=1).indices
    members = (best[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
    members = torch.cat([members, torch.arange(full, n).expand(rows, -1)], dim=1)
    top = table.gather(1, members).topk(k, dim=1)
    return _Nearest(top.values, members.gather(1, top.indices))
