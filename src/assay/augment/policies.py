"""Policies: which operation happens to which sample, drawn from (seed, epoch, sample id)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.augment.randomness import draw_integers


class Augmentation(Protocol):
    """Bytes in, bytes of the same shape out; what happens to a sample depends on (seed, epoch, its id) alone."""

    def __call__(self, images: Tensor, ids: Tensor, *, seed: int, epoch: int) -> Tensor:
        """``images`` uint8 (B, C, H, W) and ``ids`` int64 (B,) to uint8 (B, C, H, W); the input is left as it was."""
        ...


@dataclass(frozen=True)
class FlipCrop:
    """Pad by ``padding`` black pixels on every side, cut the old size out at a random place, mirror half of them."""

    padding: int = 4
    flip: bool = True

    def __call__(self, images: Tensor, ids: Tensor, *, seed: int, epoch: int) -> Tensor:
        """See :class:`Augmentation`."""
        batch, channels, height, width = images.shape
        places = 2 * self.padding + 1
        top = torch.from_numpy(draw_integers(ids, places, seed=seed, epoch=epoch, slot=0))
        left = torch.from_numpy(draw_integers(ids, places, seed=seed, epoch=epoch, slot=1))
        columns = torch.arange(width).expand(batch, width)
        if self.flip:
            mirrored = torch.from_numpy(draw_integers(ids, 2, seed=seed, epoch=epoch, slot=2)).bool()
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        padded = F.pad(images, [self.padding] * 4)
        rows = torch.arange(height) + top[:, None]  # (B, H)
        wide = padded.gather(2, rows[:, None, :, None].expand(batch, channels, height, padded.shape[3]))
        return wide.gather(3, (columns + left[:, None])[:, None, None, :].expand(batch, channels, height, width))


def flip_crop(*, padding: int = 4, flip: bool = True) -> FlipCrop:
    """The plain augmentation of small photographs: pad, crop, mirror (He et al. 2016, section 4.2)."""
    return FlipCrop(padding=padding, flip=flip)
