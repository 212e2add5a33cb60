"""The all-convolutional network: no pooling but the last, no fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from assay.errors import ModelError
from assay.models.normalize import Normalize
from assay.options import Options

SMALLEST = 9  # pixels: two halvings leave 3, which the unpadded seventh convolution takes to 1


class AllCNNOptions(Options):
    """``input_dropout`` falls on the pixels, ``dropout`` after each stride-2 layer; ``width`` multiplies the channels.

    ``output_relu`` keeps the rectifier that table 1 of the paper puts after the last convolution, so that logits are
    means of non-negative numbers.
    """

    input_dropout: float = Field(0.2, ge=0, lt=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    width: float = Field(1.0, gt=0, le=64)
    output_relu: bool = True


class AllCNN(nn.Module):
    """All-CNN-C of Springenberg et al. 2015, *Striving for simplicity*, tables 1 and 2: 1.37 M parameters.

    Seven 3×3 convolutions (the third and the sixth of stride 2, the seventh unpadded) and two 1×1, a rectifier after
    each, then the mean over pixels. Images (N, C, H, W) in [0, 1]; logits (N, classes). He's initialisation.
    """

    def __init__(self, *, classes: int, in_channels: int, normalize: Normalize, options: AllCNNOptions) -> None:
        super().__init__()
        narrow, wide = (max(1, round(channels * options.width)) for channels in (96, 192))
        self.normalize = normalize
        self.dropout0 = nn.Dropout(options.input_dropout)
        plan = [  # output channels, kernel, stride, padding
            (narrow, 3, 1, 1),
            (narrow, 3, 1, 1),
            (narrow, 3, 2, 1),
            (wide, 3, 1, 1),
            (wide, 3, 1, 1),
            (wide, 3, 2, 1),
            (wide, 3, 1, 0),
            (wide, 1, 1, 0),
            (classes, 1, 1, 0),
        ]
        self.features = nn.Sequential()
        channels = in_channels
        for i, (out_channels, kernel, stride, padding) in enumerate(plan, start=1):
            conv = nn.Conv2d(channels, out_channels, kernel, stride=stride, padding=padding)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias) if conv.bias is not None else None
            self.features.add_module(f"conv{i}", conv)
            if i < len(plan) or options.output_relu:
                self.features.add_module(f"relu{i}", nn.ReLU())
            if stride == 2:
                self.features.add_module(f"dropout{i}", nn.Dropout(options.dropout))
            channels = out_channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to logits (N, classes)."""
        x = self.features(self.dropout0(self.normalize(images)))
        return torch.flatten(self.avgpool(x), 1)


def build_allcnn(
    *, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: Mapping[str, object]
) -> AllCNN:
    """All-CNN-C for images of at least 9×9 pixels; ``options`` as in :class:`AllCNNOptions`."""
    chosen = AllCNNOptions.parse(dict(options), where="allcnn")
    if min(image_shape[1:]) < SMALLEST:
        got = f"{image_shape[1]}×{image_shape[2]}"
        raise ModelError("allcnn", expected=f"images of at least {SMALLEST}×{SMALLEST} pixels", got=got)
    return AllCNN(classes=classes, in_channels=image_shape[0], normalize=normalize, options=chosen)
