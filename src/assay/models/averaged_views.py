"""Test-time averaging: the same network, asked about several views of each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AveragedViews(nn.Module):
    """Mean logits over an image and its mirror image (2 views), or over both at three places (6 views).

    The places are the image itself, of weight 1/2, and it moved one pixel up-left and one down-right with a mirrored
    border, of weight 1/4 each. Costs 2 or 6 forward passes; an accuracy measured through it is to be called so.
    """

    def __init__(self, model: nn.Module, *, views: int = 6) -> None:
        super().__init__()
        if views not in {2, 6}:
            raise ValueError(f"views: expected 2 or 6, got {views}")
        self.model = model
        self.views = views

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, K)."""
        logits = self._mirrored(images)
        if self.views == 2:
            return logits
        height, width = images.shape[2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        moved = (padded[:, :, :height, :width], padded[:, :, 2:, 2:])
        return (logits + (self._mirrored(moved[0]) + self._mirrored(moved[1])) / 2) / 2

    def _mirrored(self, images: Tensor) -> Tensor:
        both: Tensor = self.model(torch.cat([images, images.flip(3)]))
        return (both[: len(images)] + both[len(images) :]) / 2
