"""Mixing the samples of a batch: images and targets of pairs are blended, or a box is cut from one into the other."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from assay.errors import DataError
from assay.training.objective import Mix
from assay.training.recipes import MixOptions


def build_mix(options: MixOptions) -> Mix | None:
    """The mixing that a recipe asks for; None for none."""
    if options.name == "none":
        return None
    return partial({"mixup": mixup, "cutmix": cutmix}[options.name], alpha=options.alpha)


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
    """A box of area 1 − λ from x_π is pasted into x; targets are weighted by the pixels really kept (Yun et al. 2019).

    Every sample has its own λ ~ Beta(α, α) and its own box. ``images`` floats (B, C, H, W), ``targets`` (B, K)
    distributions. Draws from torch's global generator. Raises :class:`DataError` as :func:`mixup` does.
    """
    _check(images, targets)
    batch, _, height, width = images.shape
    sides = (1 - _draw_shares(batch, alpha)).sqrt()
    order = torch.randperm(batch)
    rows, columns = (_draw_span(sides, size) for size in (height, width))  # (B, H) and (B, W)
    box = (rows[:, :, None] & columns[:, None, :])[:, None].to(images.device)  # (B, 1, H, W)
    order = order.to(images.device)
    kept = 1 - box.to(targets.dtype).mean(dim=(1, 2, 3))[:, None]
    return torch.where(box, images[order], images), torch.lerp(targets[order], targets, kept)


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
    centre = torch.randint(size, (len(sides), 1))
    places = torch.arange(size)
    return (places >= centre - half) & (places < centre + half)
