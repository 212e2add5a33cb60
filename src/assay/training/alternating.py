"""Mirroring that shows every sample both ways in every two epochs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.augment.randomness import draw_integers


@dataclass(frozen=True)
class AlternatingFlipCrop:
    """Mirror by turns, then shift by up to ``padding`` pixels, the border mirrored.

    Which half is mirrored in the first epoch is drawn from (seed, id); afterwards every sample changes side each
    epoch, so that two epochs show 2N different pictures where independent draws show 1.5N (Jordan 2024, section 3.6).
    An :class:`~assay.augment.policies.Augmentation`.
    """

    padding: int = 2
    flip: bool = True

    def __call__(self, images: Tensor, ids: Tensor, *, seed: int, epoch: int) -> Tensor:
        """Bytes (B, C, H, W) of ``ids`` (B,) to bytes of the same shape."""
        (batch, _, height, width) = images.shape
        places = 2 * self.padding + 1
        top = torch.from_numpy(draw_integers(ids, places, seed=seed, epoch=epoch, slot=0))
        left = torch.from_numpy(draw_integers(ids, places, seed=seed, epoch=epoch, slot=1))
        columns = torch.arange(width).expand(batch, width)
        if self.flip:
            side = torch.from_numpy(draw_integers(ids, 2, seed=seed, epoch=0, slot=2))
            columns = torch.where(((side + epoch) % 2).bool()[:, None], columns.flip(1), columns)
        rows = _mirror(torch.arange(height) + top[:, None] - self.padding, height)  # (B, H)
        columns = _mirror(columns + left[:, None] - self.padding, width)  # (B, W)
        index = torch.arange(batch)[:, None, None]
        return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Places beyond 0..size−1 mirrored back at the border pixel."""
    return size - 1 - (size - 1 - index.abs()).abs()
