"""Other scales and channel orders than those in which a model is given its pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from assay.models.wrappers import CENTRED, PRESETS, Normalization, Normalize

Convention = Callable[[Tensor], Tensor]
ALIKE = 0.02  # in pixel units: normalisations that differ by less are one
NAMES = {
    "ImageNet's mean and deviation": PRESETS["imagenet"],
    "[−1, 1]": CENTRED,
    "[0, 1]": PRESETS["none"],
    "[0, 255]": Normalization((0.0,), (1 / 255,)),
}


def own_normalization(model: nn.Module) -> Normalization | None:
    """That of the first :class:`Normalize` in the model; None where it has none, or does it in another way."""
    for module in model.modules():
        if isinstance(module, Normalize):
            buffers = (module.mean.flatten().tolist(), module.std.flatten().tolist())
            return Normalization(
                *(tuple(float(f"{value:.7g}") for value in values) for values in buffers)
            )  # of float32
    return None


def replaced_normalizations(own: Normalization, *, channels: int) -> dict[str, Convention]:
    """What to do to pixels so that behind the model's ``own`` normalisation they arrive as behind another one.

    Those that are as good as its own are left out, and ImageNet's on images that are not in colour.
    """
    ways: dict[str, Convention] = {}
    for name, other in NAMES.items():
        mean, std = (torch.tensor(values) for values in other)
        own_mean, own_std = (torch.tensor(values) for values in own)
        alike = bool(((mean - own_mean).abs() < ALIKE).all()) and bool(((std - own_std).abs() < ALIKE * own_std).all())
        if len(other.mean) in {1, channels} and not alike:
            ways[f"in {name} in place of its own normalisation"] = _replace(mean, std, own_mean, own_std)
    return ways


def _replace(mean: Tensor, std: Tensor, own_mean: Tensor, own_std: Tensor) -> Convention:
    factor, shift = ((each).view(-1, 1, 1) for each in (own_std / std, own_mean - mean * own_std / std))
    return lambda x: x * factor.to(x) + shift.to(x)
