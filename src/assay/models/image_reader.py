"""Sequence models as image classifiers: they read a picture row by row or pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from assay.models.sequence import SequenceModelOptions, build_sequence_model
from assay.models.wrappers import Normalize


class ReaderOptions(SequenceModelOptions):
    """``by`` row: H steps of W·C numbers; by pixel: H·W steps of C, after averaging down to ``side`` where given."""

    by: Literal["row", "pixel"] = "row"
    hidden: int = Field(128, ge=1)
    side: int | None = Field(None, ge=1)


class ImageReader(nn.Module):
    """Images (N, C, H, W) in [0, 1] to logits (N, K) through a sequence model; normalisation inside."""

    def __init__(self, sequence: nn.Module, *, normalize: Normalize, options: ReaderOptions) -> None:
        super().__init__()
        self.normalize, self.sequence, self.by, self.side = normalize, sequence, options.by, options.side

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to logits (N, K)."""
        x = self.normalize(images)
        if self.side is not None:
            x = nn.functional.interpolate(x, size=(self.side, self.side), mode="area")
        x = x.permute(0, 2, 3, 1)  # (N, H, W, C)
        out: Tensor = self.sequence(x.flatten(2) if self.by == "row" else x.flatten(1, 2))
        return out


def build_image_reader(
    *,
    classes: int,
    image_shape: tuple[int, int, int],
    normalize: Normalize,
    options: Mapping[str, object],
    name: str,
) -> nn.Module:
    """A classifier of images over the sequence model ``name``; see :class:`ReaderOptions`."""
    chosen = ReaderOptions.parse(dict(options), where="model_options")
    channels, height, width = image_shape
    if chosen.side is not None:
        height = width = chosen.side
    length, features = (height, width * channels) if chosen.by == "row" else (height * width, channels)
    sequence = build_sequence_model(
        name,
        features=features,
        outputs=classes,
        length=length,
        hidden=chosen.hidden,
        layers=chosen.layers,
        forget_bias=chosen.forget_bias,
        seed=torch.initial_seed(),
    )
    return ImageReader(sequence, normalize=normalize, options=chosen)
