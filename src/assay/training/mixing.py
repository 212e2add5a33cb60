"""Mixing the samples of a batch: images and targets of pairs are blended, or a box is cut from one into the other."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from assay.training.recipes import MixOptions
from assay.training.step import Mix


def build_mix(options: MixOptions) -> Mix | None:
    """The mixing that a recipe asks for; None for none."""
    if options.name == "none":
        return None
    return partial({"mixup": mixup, "cutmix": cutmix}[options.name], alpha=options.alpha)


def mixup(images: Tensor, targets: Tensor, *, alpha: float) -> tuple[Tensor, Tensor]:
    """x̃ = λx + (1 − λ)x_π and ỹ = λy + (1 − λ)y_π, λ ~ Beta(α, α), π a permutation (Zhang et al. 2018).

    ``images`` (B, C, H, W), ``targets`` (B, K) distributions. Draws from torch's global generator.
    """
    share, order = _draw_share(alpha), torch.randperm(len(images)).to(images.device)
    return torch.lerp(images[order], images, share), torch.lerp(targets[order], targets, share)


def cutmix(images: Tensor, targets: Tensor, *, alpha: float) -> tuple[Tensor, Tensor]:
    """A box of area 1 − λ from x_π is pasted into x; targets are weighted by the pixels really kept (Yun et al. 2019).

    ``images`` (B, C, H, W), ``targets`` (B, K) distributions. Draws from torch's global generator.
    """
    share, order = _draw_share(alpha), torch.randperm(len(images)).to(images.device)
    height, width = images.shape[2:]
    half_h, half_w = (round(side * (1 - share) ** 0.5 / 2) for side in (height, width))
    row, column = (int(torch.randint(side, ())) for side in (height, width))
    rows = slice(max(0, row - half_h), min(height, row + half_h))
    columns = slice(max(0, column - half_w), min(width, column + half_w))
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[order][:, :, rows, columns]
    kept = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return mixed, torch.lerp(targets[order], targets, kept)


def _draw_share(alpha: float) -> float:
    """λ ~ Beta(α, α), from two Gamma draws of the global generator."""
    first, second = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64)).tolist()
    return float(first / (first + second)) if first + second > 0 else 0.5
