"""Pictures of any size as luminance of 32 × 32 pixels: what duplicates are searched in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32  # pixels along a thumbnail
BLOCK_BYTES = 1 << 26  # of pixels as floating numbers that are made smaller at once
_LUMA = (0.299, 0.587, 0.114)


def make_thumbnails(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W), C in 1..4, to grey levels uint8 (N, 32, 32); each side is scaled for itself.

    Every pixel of a thumbnail is the mean of those that it covers, so that fine texture does not alias.
    """
    n, channels, height, width = images.shape
    thumbnails = torch.empty(n, SIDE, SIDE, dtype=torch.uint8)
    weights = torch.tensor(_LUMA) if channels >= 3 else torch.tensor([1.0])
    rows, columns = (_area_weights(size) for size in (height, width))
    step = max(1, BLOCK_BYTES // (4 * channels * height * width))
    for start in range(0, n, step):
        pixels = images[start : start + step, : len(weights)].float()
        grey = (pixels * weights[:, None, None]).sum(dim=1)
        thumbnails[start : start + step] = (rows @ grey @ columns.T).round_().clamp_(0, 255).byte()
    return thumbnails


def _area_weights(size: int) -> Tensor:
    """(32, size): the share that each of ``size`` pixels has in each pixel of a thumbnail."""
    edges = torch.arange(SIDE + 1, dtype=torch.float64) * size / SIDE
    cells = torch.arange(size, dtype=torch.float64)
    covered = (torch.minimum(edges[1:, None], cells + 1) - torch.maximum(edges[:-1, None], cells)).clamp(min=0)
    return (covered / covered.sum(dim=1, keepdim=True)).float()


def middle(thumbnails: Tensor, *, share: float) -> Tensor:
    """The middle of each of (N, 32, 32), with this ``share`` of each side, enlarged again; floating numbers."""
    theta = torch.tensor([[[share, 0.0, 0.0], [0.0, share, 0.0]]])
    grid = F.affine_grid(theta, [1, 1, SIDE, SIDE], align_corners=False)
    as_channels = thumbnails.float()[None]  # one grid serves all
    return F.grid_sample(as_channels, grid, padding_mode="border", align_corners=False)[0]
