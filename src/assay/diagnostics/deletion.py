"""How fast the probability of an answer falls while regions of the picture are replaced, in one order or another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.models.calls import ModelCall
from assay.runtime import generator

SIDE = 8  # regions along a side, at most one a pixel
STEPS = 8  # at which the probability is taken, after the first


def regions_of(shape: tuple[int, int]) -> Tensor:
    """The region of every pixel, int64 (H, W): a grid of at most 8 × 8."""
    rows, columns = (torch.arange(size) * min(SIDE, size) // size for size in shape)
    return rows[:, None] * min(SIDE, shape[1]) + columns


def rank_regions(maps: Tensor, *, ids: tuple[int, ...], seed: int) -> Tensor:
    """Regions from the most marked down, int64 (N, R): by the mean of ``maps`` (N, H, W) in each, ties at random."""
    regions = regions_of((maps.shape[1], maps.shape[2])).flatten()
    members = F.one_hot(regions).double()
    means = maps.double().flatten(1) @ (members / members.sum(dim=0))
    shuffled = shuffle_regions(means.shape[1], ids=ids, seed=seed, draw=-1)
    order = means.gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
    return shuffled.gather(1, order)


def shuffle_regions(count: int, *, ids: tuple[int, ...], seed: int, draw: int) -> Tensor:
    """A random order of the regions for each picture, int64 (N, R), that hangs on its id alone."""
    return torch.stack([torch.randperm(count, generator=generator(seed, each, draw, 40)) for each in ids])


def blur(images: Tensor) -> Tensor:
    """Each pixel the mean of its neighbourhood, half the picture wide: colours stay, what they show is gone."""
    height, width = images.shape[2] // 4, images.shape[3] // 4
    return F.avg_pool2d(
        images, (2 * height + 1, 2 * width + 1), stride=1, padding=(height, width), count_include_pad=False
    )


def fractions_of(count: int) -> tuple[float, ...]:
    """The shares of the regions that are replaced, from none to all."""
    return tuple(n / count for n in _counts(count))


def measure_deletion(network: ModelCall, images: Tensor, targets: Tensor, orders: Tensor) -> Tensor:
    """The probability of ``targets`` (N,) with the first regions of ``orders`` (N, R) blurred, float64 (N, steps)."""
    regions = regions_of((images.shape[2], images.shape[3])).to(images.device)
    blurred, places = blur(images), orders.argsort(dim=1).to(images.device)  # the place of every region in the order
    size = network.rows_that_fit(images.shape[1:], most=64)
    curves = []
    with torch.no_grad():
        for n in _counts(orders.shape[1]):
            gone = (places < n)[:, regions][:, None]  # (N, 1, H, W)
            logits = torch.cat([network(part) for part in torch.split(torch.where(gone, blurred, images), size)])
            curves.append(logits.double().softmax(dim=1).gather(1, targets[:, None])[:, 0].cpu())
    return torch.stack(curves, dim=1)


def area(curves: Tensor, fractions: tuple[float, ...]) -> Tensor:
    """Under curves (N, steps) over the fractions, by trapezia."""
    return torch.trapezoid(curves, torch.tensor(fractions, dtype=curves.dtype), dim=1)


def _counts(count: int) -> list[int]:
    return sorted({round(step * count / STEPS) for step in range(STEPS + 1)})
