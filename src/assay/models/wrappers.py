"""Normalisation is the first layer of a model, so that every model takes pixels in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import OptionError
from assay.models.outputs import read_outputs


class Normalization(NamedTuple):
    """Mean and standard deviation of each channel, in pixel units ([0, 1] scale)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


PRESETS: Mapping[str, Normalization] = MappingProxyType(
    {
        "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "none": Normalization((0.0,), (1.0,)),
    }
)
CENTRED = Normalization((0.5,), (0.5,))  # [0, 1] to [−1, 1], for images without published statistics


class Normalize(nn.Module):
    """y[:, c] = (x[:, c] − mean[c]) / std[c], for x (N, C, H, W) in [0, 1].

    ``mean`` and ``std`` (C,) are buffers: saved with the weights, never trained. A grey image (N, 1, H, W) is shown to
    each of the C channels. The result has the dtype of x.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(normalization.mean))
        self.register_buffer("std", torch.tensor(normalization.std))

    def forward(self, images: Tensor) -> Tensor:
        return ((images - self.mean[:, None, None]) / self.std[:, None, None]).to(images.dtype)

    def extra_repr(self) -> str:
        mean, std = (", ".join(f"{value:.4g}" for value in each.tolist()) for each in (self.mean, self.std))
        return f"mean=({mean}), std=({std})"


class Normalized(nn.Module):
    """A model that expects normalised images, made to take pixels: model(normalize(x)).

    Pixels in float32 are given to it in the dtype of its first parameter, those of half floats as they come.
    """

    def __init__(self, normalize: Normalize, model: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        if x.dtype == torch.float32:
            x = x.to(next((p.dtype for p in self.model.parameters() if p.is_floating_point()), x.dtype))
        return self.model(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


class ChannelsReversed(nn.Module):
    """A model that expects BGR, made to take RGB: model(x[:, ::-1])."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.flip(1))  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


def choose_normalization(
    wanted: str | tuple[Sequence[float], Sequence[float]] | None, *, channels: int
) -> Normalization:
    """Mean and standard deviation for images of ``channels`` channels.

    ``wanted`` is ``"imagenet"``, ``"cifar10"``, ``"none"``, numbers ``"m1,m2,m3/s1,s2,s3"`` (one number stands for all
    channels), a pair of sequences, or None: ImageNet's for three channels, else 0.5 and 0.5. A preset of three
    channels is averaged for another number of them. Raises :class:`OptionError`.
    """
    if wanted is None:
        return _spread(PRESETS["imagenet"] if channels == 3 else CENTRED, channels)
    if isinstance(wanted, str) and wanted in PRESETS:
        return _spread(PRESETS[wanted], channels)
    chosen = _parse(wanted) if isinstance(wanted, str) else Normalization(tuple(wanted[0]), tuple(wanted[1]))
    for name, values in zip(chosen._fields, chosen, strict=True):
        if len(values) not in {1, channels}:
            got = f"{len(values)} numbers"
            raise OptionError(f"normalization: {name}", expected=f"1 or {channels} numbers, one a channel", got=got)
        if not all(math.isfinite(value) for value in values):
            raise OptionError(f"normalization: {name}", expected="finite numbers", got=values)
    if min(chosen.std) <= 0:
        raise OptionError("normalization: std", expected="numbers above 0", got=chosen.std)
    return _spread(chosen, channels)


def _parse(text: str) -> Normalization:
    try:
        mean, std = (tuple(float(value) for value in side.split(",")) for side in text.split("/"))
        return Normalization(mean, std)
    except ValueError:
        expected = f"{', '.join(PRESETS)}, or numbers m1,m2,m3/s1,s2,s3"
        raise OptionError("normalization", expected=expected, got=repr(text)) from None


def _spread(normalization: Normalization, channels: int) -> Normalization:
    return Normalization(
        *(values if len(values) == channels else (sum(values) / len(values),) * channels for values in normalization)
    )


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
        logits = self._mirrored(images)
        if self.views == 2:
            return logits
        height, width = images.shape[2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        moved = (padded[:, :, :height, :width], padded[:, :, 2:, 2:])
        return (logits + (self._mirrored(moved[0]) + self._mirrored(moved[1])) / 2) / 2

    def _mirrored(self, images: Tensor) -> Tensor:
        both = read_outputs(self.model(torch.cat([images, images.flip(3)])), n=2 * len(images)).logits
        return (both[: len(images)] + both[len(images) :]) / 2
