"""What a training image goes through before the network sees it: an augmentation, then fewer pixels early on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.augment.language import parse_policy
from assay.augment.policies import Augmentation, flip_crop
from assay.augment.randomness import draw_integers
from assay.data.dataset import Batch
from assay.errors import DataError
from assay.training.sections import AugmentOptions, FlipCrop, MixOptions, Nothing, PolicyAugment, Shrink
from assay.training.step import Mix


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
        top, left = (torch.from_numpy(draw_integers(ids, places, seed=seed, epoch=epoch, slot=i)) for i in (0, 1))
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


@dataclass(frozen=True)
class View:
    """Bytes of a micro-batch to the bytes to train on: ``augment``, then fewer pixels of it.

    ``shrink`` cuts a random ``window`` of ``side`` × ``side``, or does a ``resize`` of the image to a short side of
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
    """What happens to the bytes of every image; None: nothing. Raises :class:`OptionError` for a bad policy."""
    match options:
        case Nothing():
            return None
        case PolicyAugment():
            return parse_policy(options.policy, where="augment.policy")
        case FlipCrop():
            maker = AlternatingFlipCrop if options.name == "alternating" else flip_crop
            return maker(padding=options.padding, flip=options.flip)


def choose_side(stages: Sequence[tuple[float, int]], *, progress: float) -> int | None:
    """The side of the last stage that began at or before ``progress``; None: the full image."""
    begun = [(start, side) for start, side in stages if start <= progress]
    return max(begun)[1] if begun else None


def build_mix(options: MixOptions) -> Mix | None:
    if isinstance(options, Nothing):
        return None
    return partial(mixup if options.name == "mixup" else cutmix, alpha=options.alpha)


def mixup(images: Tensor, targets: Tensor, *, alpha: float) -> tuple[Tensor, Tensor]:
    """x̃ = λx + (1 − λ)x_π and ỹ = λy + (1 − λ)y_π, λ ~ Beta(α, α) a sample, π a permutation (Zhang et al. 2018).

    ``images`` floats (B, C, H, W), ``targets`` (B, K) distributions. Draws from torch's global generator.
    Raises :class:`DataError` for bytes, or for labels where distributions belong.
    """
    _check(images, targets)
    share, order = _draw_shares(len(images), alpha).to(images), torch.randperm(len(images)).to(images.device)
    mixed = torch.lerp(images[order], images, share[:, None, None, None])
    return mixed, torch.lerp(targets[order], targets, share[:, None])


def cutmix(images: Tensor, targets: Tensor, *, alpha: float) -> tuple[Tensor, Tensor]:
    """A box of area 1 − λ from x_π is pasted into x; targets are weighted by the share of pixels (Yun et al. 2019).

    Every sample has its own λ ~ Beta(α, α) and its own box. ``images`` floats (B, C, H, W), ``targets`` (B, K)
    distributions. Draws from torch's global generator. Raises :class:`DataError` as :func:`mixup` does.
    """
    _check(images, targets)
    batch, _, height, width = images.shape
    sides = (1 - _draw_shares(batch, alpha)).sqrt()
    order = torch.randperm(batch).to(images.device)
    rows, columns = (_draw_span(sides, size) for size in (height, width))  # (B, H) and (B, W)
    box = (rows[:, :, None] & columns[:, None, :])[:, None].to(images.device)  # (B, 1, H, W)
    weight = 1 - box.to(targets.dtype).mean(dim=(1, 2, 3))[:, None]
    return torch.where(box, images[order], images), torch.lerp(targets[order], targets, weight)


def _check(images: Tensor, targets: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise DataError("images", expected="floats (B, C, H, W)", got=f"{images.dtype} {tuple(images.shape)}")
    if targets.ndim != 2 or len(targets) != len(images) or not targets.is_floating_point():
        expected = f"a distribution over the classes for each of {len(images)} images, floats (B, K)"
        raise DataError("targets", expected=expected, got=f"{targets.dtype} {tuple(targets.shape)}")


def _draw_shares(batch: int, alpha: float) -> Tensor:
    """float64 (B,): λ ~ Beta(α, α), each from two Gamma draws of the global generator."""
    first, second = torch._standard_gamma(torch.full((2, batch), alpha, dtype=torch.float64))
    return torch.where(first + second > 0, first / (first + second), 0.5)


def _draw_span(sides: Tensor, size: int) -> Tensor:
    """bool (B, size): for each of ``sides`` (B,), shares of ``size``, a span of that length around a random place."""
    half = (sides * size / 2).round()[:, None]
    distance = torch.arange(size) - torch.randint(size, (len(sides), 1))
    return (distance >= -half) & (distance < half)
