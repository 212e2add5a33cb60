"""What a training image goes through before the network sees it: an augmentation, then fewer pixels early on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.augment.language import parse_policy
from assay.augment.policies import Augmentation, flip_crop
from assay.data.dataset import Batch
from assay.training.alternating import AlternatingFlipCrop
from assay.training.recipes import AugmentOptions, Shrink


@dataclass(frozen=True)
class View:
    """Bytes of a micro-batch to the bytes to train on: ``augment``, then fewer pixels of it.

    ``shrink`` cuts a random ``window`` of ``side`` × ``side``, or does a ``resize`` of the whole to a short side of
    ``side`` (bilinear, antialiased). The window's place is drawn from torch's global generator and shared by the
    micro-batch: each sample was moved on its own before.
    """

    augment: Augmentation | None
    side: int | None
    seed: int
    epoch: int
    shrink: Shrink = "window"

    def __call__(self, batch: Batch) -> Tensor:
        """(B, C, H, W) to (B, C, H', W'): as it was where its short side is not above ``side``."""
        images = batch.images
        if self.augment is not None:
            images = self.augment(images, batch.ids, seed=self.seed, epoch=self.epoch)
        height, width = images.shape[2:]
        if self.side is None or self.side >= min(height, width):
            return images
        if self.shrink == "resize":
            small = [round(size * self.side / min(height, width)) for size in (height, width)]
            return F.interpolate(images.contiguous(), small, mode="bilinear", antialias=True)
        top, left = (int(torch.randint(size - self.side + 1, ())) for size in (height, width))
        return images[:, :, top : top + self.side, left : left + self.side]


def build_augmentation(options: AugmentOptions) -> Augmentation | None:
    """What happens to the bytes of every training image; None: nothing.

    Raises :class:`OptionError` for a policy that cannot be read.
    """
    if options.name == "none":
        return None
    if options.name == "policy":
        return parse_policy(options.policy, where="augment.policy")
    maker = AlternatingFlipCrop if options.name == "alternating" else flip_crop
    return maker(padding=options.padding, flip=options.flip)


def choose_side(stages: Sequence[tuple[float, int]], *, progress: float) -> int | None:
    """The side of the last stage that began at or before ``progress``; None: the whole image."""
    begun = [(start, side) for start, side in stages if start <= progress]
    return max(begun)[1] if begun else None
